//! Derived features: expressions over other features of the same view, each after those it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};
use headwater_schema::{Field, Problem};

use crate::Expression;
use crate::catalog::{CompiledFeature, FeatureKind};

/// Compiles the derived features, whose SQL is given by index, and returns the order in which all
/// features can be worked out. An error names the feature that is wrong.
pub(crate) fn compile_derived(
    features: &mut [CompiledFeature],
    derived: &BTreeMap<usize, &str>,
) -> Result<Vec<usize>, (usize, Problem)> {
    let names: Vec<Arc<str>> = features.iter().map(|f| f.name.clone()).collect();
    let order = evaluation_order(&names, None, derived)?;
    for index in &order {
        if let Some(sql) = derived.get(index) {
            compile_one(*index, sql, features, &order).map_err(|problem| (*index, problem))?;
        }
    }
    Ok(order)
}

fn compile_one(
    index: usize,
    sql: &str,
    features: &mut [CompiledFeature],
    order: &[usize],
) -> Result<(), Problem> {
    let known: Vec<usize> = order.iter().copied().take_while(|i| *i != index).collect();
    let columns: Vec<Field> = known
        .iter()
        .map(|i| Field::new(features[*i].name.clone(), features[*i].data_type.clone()))
        .collect();
    let used = Expression::compile(sql, &columns)?.columns().to_vec();
    // Compiled again over what it reads alone, so that reading it needs nothing else.
    let inputs: Vec<usize> = used.iter().map(|u| known[*u]).collect();
    let columns: Vec<Field> = used.iter().map(|u| columns[*u].clone()).collect();
    let expression = Expression::compile(sql, &columns)?;
    features[index].data_type = expression.data_type().clone();
    features[index].kind = FeatureKind::Expression { expression, inputs };
    Ok(())
}

/// The order in which named things can be worked out, of which some are derived by SQL from others:
/// first those that aren't. With a scope, a name with another scope before it is none of them.
pub(crate) fn evaluation_order(
    names: &[Arc<str>],
    scope: Option<&str>,
    derived: &BTreeMap<usize, &str>,
) -> Result<Vec<usize>, (usize, Problem)> {
    let within = |sql: &&str| derived_within(sql, names, scope, derived);
    let reads = derived.iter().map(|(index, sql)| (*index, within(sql)));
    let mut search = Search {
        names,
        reads: reads.collect(),
        done: (0..names.len())
            .map(|i| !derived.contains_key(&i))
            .collect(),
        order: (0..names.len())
            .filter(|i| !derived.contains_key(i))
            .collect(),
    };
    for index in derived.keys() {
        search
            .visit(*index, &mut Vec::new())
            .map_err(|problem| (*index, problem))?;
    }
    Ok(search.order)
}

/// The derived things that `sql` reads: names that stand in it, but as members, calls or types.
fn derived_within(
    sql: &str,
    names: &[Arc<str>],
    scope: Option<&str>,
    derived: &BTreeMap<usize, &str>,
) -> Vec<usize> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize()
        .unwrap_or_default();
    let tokens = tokens
        .into_iter()
        .filter(|t| !matches!(t, Token::Whitespace(_)));
    let tokens: Vec<Token> = tokens.collect();
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => Some(word.value.as_str()),
        _ => None,
    };
    let before = |at: usize| at.checked_sub(1).and_then(|before| tokens.get(before));
    let is_member = |at: usize| before(at) == Some(&Token::Period);
    // Behind a period only what stands in the scope itself is read.
    let in_scope = |at: usize| {
        let scope_at = at.saturating_sub(2);
        scope.is_some() && word(scope_at) == scope && !is_member(scope_at)
    };
    let is_type = |at: usize| match before(at) {
        Some(Token::Word(word)) => word.keyword == Keyword::AS,
        before => before == Some(&Token::DoubleColon),
    };
    let is_read = |at: &usize| {
        let at = *at;
        let is_call = tokens.get(at + 1) == Some(&Token::LParen);
        (!is_member(at) || in_scope(at)) && !is_call && !is_type(at)
    };
    let own: BTreeSet<&str> = (0..tokens.len()).filter(is_read).filter_map(word).collect();
    let named = |index: &&usize| own.contains(names[**index].as_ref());
    derived.keys().filter(named).copied().collect()
}

/// Whether one of some features, or a window of one, is named in `sql`.
pub(crate) fn names_any(sql: &str, features: &[&str]) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let is_one = |word: &str| {
        features.iter().any(|feature| {
            let rest = word.strip_prefix(feature);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    };
    tokens.unwrap_or_default().iter().any(|token| match token {
        Token::Word(word) => is_one(&word.value),
        _ => false,
    })
}

/// A depth-first walk over what reads what.
struct Search<'a> {
    names: &'a [Arc<str>],
    reads: BTreeMap<usize, Vec<usize>>,
    done: Vec<bool>,
    order: Vec<usize>,
}

impl Search<'_> {
    fn visit(&mut self, index: usize, path: &mut Vec<usize>) -> Result<(), Problem> {
        if self.done[index] {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|p| *p == index) {
            let circle = path[start..].iter().chain([&index]);
            let names: Vec<&str> = circle.map(|i| self.names[*i].as_ref()).collect();
            return Err(
                Problem::user("cycle", "derived features read each other in a circle")
                    .detail(names.join(" → "))
                    .hint("derive one of them from something else"),
            );
        }
        path.push(index);
        for read in self.reads.get(&index).cloned().unwrap_or_default() {
            self.visit(read, path)?;
        }
        path.pop();
        self.done[index] = true;
        self.order.push(index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `sql` reads of `round`, `date` and `north`, all of them derived.
    fn read(sql: &str, scope: Option<&str>) -> Vec<&'static str> {
        const NAMES: [&str; 3] = ["round", "date", "north"];
        let names: [Arc<str>; 3] = NAMES.map(Arc::from);
        let derived: BTreeMap<usize, &str> = (0..3).map(|index| (index, "")).collect();
        let found = derived_within(sql, &names, scope, &derived);
        found.into_iter().map(|index| NAMES[index]).collect()
    }

    #[test]
    fn members_calls_and_types_are_no_reads() {
        let none: [&str; 0] = [];
        for sql in [
            "by_shop.north",
            "by_shop.north.date",
            "shops['x'].north",
            "by_shop['north']",
            "round(x)",
            "CAST(x AS date)",
            "x::date",
        ] {
            assert_eq!(read(sql, None), none, "{sql}");
            assert_eq!(read(sql, Some("visit")), none, "{sql}");
        }
        assert_eq!(read("north.x + date", None), ["date", "north"]);
        assert_eq!(read("round(north)", None), ["north"]);
        assert_eq!(read("\"north\" IN (1)", None), ["north"]);
    }

    #[test]
    fn behind_a_period_only_the_scope_itself_is_read() {
        let visit = Some("visit");
        assert_eq!(read("visit.north + shop.date", visit), ["north"]);
        assert_eq!(read("shop.visit.north", visit), [""; 0]);
        assert_eq!(read("visit.north", None), [""; 0]);
    }
}
