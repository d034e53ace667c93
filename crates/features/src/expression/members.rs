//! Members of structs and maps: `place['town']` is what `place.town` is. Lists aren't taken apart here.

use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion_expr::{Expr, GetFieldAccess};
use datafusion_functions::core::get_field;
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};
use headwater_schema::Problem;

/// Plans `[…]` behind an expression.
#[derive(Debug)]
pub(super) struct MemberPlanner;

impl ExprPlanner for MemberPlanner {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        _: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>, DataFusionError> {
        match access.field_access {
            GetFieldAccess::NamedStructField { name } => {
                let name = Expr::Literal(name, None);
                let member = get_field().call(vec![access.expr, name]);
                Ok(PlannerResult::Planned(member))
            }
            GetFieldAccess::ListIndex { .. } | GetFieldAccess::ListRange { .. } => Err(
                DataFusionError::External(Box::new(no_lists("takes an item out of a list"))),
            ),
        }
    }
}

/// What an expression is told that takes a list apart.
fn no_lists(does: &str) -> Problem {
    Problem::user("invalid-expression", "expressions don't take lists apart")
        .detail(does)
        .hint(
            "aggregate what lists hold with `unnest: true` or `element_wise: true`; \
             `['name']`, in single quotes, is a member of a struct or a map",
        )
}

/// The problem of an expression that takes a list apart, where that is why it is wrong.
pub(super) fn taken_apart(sql: &str, error: &DataFusionError) -> Option<Problem> {
    if let DataFusionError::External(found) = error.find_root() {
        let problem = found.downcast_ref::<Problem>()?;
        return Some(
            problem
                .clone()
                .detail(format!("`{sql}` {}", problem.detail)),
        );
    }
    let call = calls(sql).into_iter().find(|name| is_of_lists(name))?;
    Some(no_lists(&format!("`{sql}` calls `{call}`")))
}

/// The functions that a text calls.
fn calls(sql: &str) -> Vec<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.unwrap_or_default();
    let calls = tokens.windows(2).filter_map(|pair| match pair {
        [Token::Word(word), Token::LParen] => Some(word.value.to_lowercase()),
        _ => None,
    });
    calls.collect()
}

/// Whether a function is one of those for lists and maps that there are in SQL and not here.
fn is_of_lists(name: &str) -> bool {
    const BEGINNINGS: [&str; 3] = ["array", "list_", "map"];
    const NAMES: [&str; 5] = [
        "cardinality",
        "element_at",
        "flatten",
        "make_array",
        "unnest",
    ];
    BEGINNINGS.iter().any(|start| name.starts_with(start)) || NAMES.contains(&name)
}
