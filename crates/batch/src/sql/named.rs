//! Entities that filters name, by all their keys.

use std::collections::BTreeSet;

use arrow::datatypes::DataType as ArrowType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use headwater_schema::{DataType, EntityKey, Field, Value};

/// The entities that may pass all filters, where these name no more than `most`; none: any may. Those of a null key are
/// no entities.
pub fn entities(filters: &[Expr], keys: &[Field], most: usize) -> Option<Vec<EntityKey>> {
    let mut named: Vec<Vec<Value>> = vec![Vec::new()];
    for key in keys {
        let values = filters.iter().find_map(|filter| values(filter, key))?;
        let longer = named.iter().flat_map(|entity| {
            let with = |value: &Value| [entity.as_slice(), std::slice::from_ref(value)].concat();
            values.iter().map(with)
        });
        named = longer.take(most + 1).collect();
    }
    if keys.is_empty() || named.len() > most {
        return None;
    }
    let keys: BTreeSet<Vec<u8>> = named
        .iter()
        .filter_map(|values| Some(EntityKey::from_values(values)?.as_bytes().to_vec()))
        .collect();
    Some(keys.iter().map(|key| EntityKey::from_bytes(key)).collect())
}

/// The values of a key that may pass a filter; none: any may.
fn values(filter: &Expr, key: &Field) -> Option<Vec<Value>> {
    let of_key = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == *key.name);
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => values(left, key).or_else(|| values(right, key)),
            Operator::Or => Some([values(left, key)?, values(right, key)?].concat()),
            Operator::Eq if of_key(left) => Some(vec![value(right, key)?]),
            Operator::Eq if of_key(right) => Some(vec![value(left, key)?]),
            _ => None,
        },
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) if of_key(expr) => list.iter().map(|item| value(item, key)).collect(),
        _ => None,
    }
}

/// A literal as a key's value, where equal literals are one value.
fn value(expr: &Expr, key: &Field) -> Option<Value> {
    let Expr::Literal(literal, _) = expr else {
        return None;
    };
    let same = match (&key.data_type, literal.data_type()) {
        (DataType::String, ArrowType::Utf8 | ArrowType::Utf8View | ArrowType::LargeUtf8) => true,
        (DataType::Int64 | DataType::Bool | DataType::Date, other) => {
            other == key.data_type.to_arrow()
        }
        _ => false,
    };
    let cast = |literal: &ScalarValue| literal.cast_to(&key.data_type.to_arrow()).ok();
    let array = cast(literal).filter(|_| same)?.to_array().ok()?;
    Some(Value::from_array(&array, 0))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn entities_are_named_by_all_their_keys_or_not_at_all() {
        let keys = [
            Field::new("who", DataType::String),
            Field::new("n", DataType::Int64),
        ];
        let entity = |who: &str, n| EntityKey::from_values(&[Value::string(who), Value::Int(n)]);
        let found = |filter: Expr| {
            let found = entities(&[filter], &keys, 4)?;
            let mut found: Vec<Vec<u8>> = found.iter().map(|k| k.as_bytes().to_vec()).collect();
            found.sort();
            Some(found)
        };
        let want = |named: &[(&str, i64)]| {
            let named = named.iter().filter_map(|(who, n)| entity(who, *n));
            let mut want: Vec<Vec<u8>> = named.map(|k| k.as_bytes().to_vec()).collect();
            want.sort();
            Some(want)
        };
        let who = || col("who").eq(lit("a")).or(lit("b").eq(col("who")));
        let both = who().and(col("n").in_list(vec![lit(1_i64), lit(2_i64)], false));
        let all = [("a", 1), ("a", 2), ("b", 1), ("b", 2)];
        assert_eq!(found(both.clone()), want(&all));
        // A further condition only leaves some out, which isn't for this to say.
        assert_eq!(found(both.and(col("who").like(lit("a%")))), want(&all));
        assert_eq!(found(who()), None);
        assert_eq!(found(who().and(col("n").gt(lit(1_i64)))), None);
        assert_eq!(found(who().or(col("n").eq(lit(1_i64)))), None);
        let not = col("n").in_list(vec![lit(1_i64)], true);
        assert_eq!(found(who().and(not)), None);
        let many = (0..3).map(lit).collect();
        assert_eq!(found(who().and(col("n").in_list(many, false))), None);
        let nobody = who().and(col("n").eq(lit(ScalarValue::Int64(None))));
        assert_eq!(found(nobody), want(&[]));
    }
}
