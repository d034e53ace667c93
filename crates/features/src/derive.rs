//! Derived features: expressions over other features of the same view, each after those it reads.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::dialect::GenericDialect;
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
    let reads: BTreeMap<usize, Vec<usize>> = derived
        .iter()
        .map(|(index, sql)| (*index, derived_within(sql, features, derived)))
        .collect();
    let mut order: Vec<usize> = (0..features.len())
        .filter(|i| !derived.contains_key(i))
        .collect();
    let mut done: Vec<bool> = (0..features.len())
        .map(|i| !derived.contains_key(&i))
        .collect();
    for index in derived.keys() {
        visit(
            *index,
            &reads,
            features,
            &mut done,
            &mut order,
            &mut Vec::new(),
        )
        .map_err(|problem| (*index, problem))?;
    }
    for index in order.clone() {
        if let Some(sql) = derived.get(&index) {
            compile_one(index, sql, features, &order).map_err(|problem| (index, problem))?;
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

/// The derived features whose names stand in `sql`.
fn derived_within(
    sql: &str,
    features: &[CompiledFeature],
    derived: &BTreeMap<usize, &str>,
) -> Vec<usize> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize()
        .unwrap_or_default();
    let words: Vec<String> = tokens
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.value),
            _ => None,
        })
        .collect();
    let named = |index: &&usize| words.iter().any(|w| *w == *features[**index].name);
    derived.keys().filter(named).copied().collect()
}

fn visit(
    index: usize,
    reads: &BTreeMap<usize, Vec<usize>>,
    features: &[CompiledFeature],
    done: &mut [bool],
    order: &mut Vec<usize>,
    path: &mut Vec<usize>,
) -> Result<(), Problem> {
    if done[index] {
        return Ok(());
    }
    if let Some(start) = path.iter().position(|p| *p == index) {
        let names: Vec<&str> = path[start..]
            .iter()
            .chain([&index])
            .map(|i| features[*i].name.as_ref())
            .collect();
        return Err(
            Problem::user("cycle", "derived features read each other in a circle")
                .detail(names.join(" → "))
                .hint("derive one of them from something else"),
        );
    }
    path.push(index);
    for read in reads.get(&index).into_iter().flatten() {
        visit(*read, reads, features, done, order, path)?;
    }
    path.pop();
    done[index] = true;
    order.push(index);
    Ok(())
}
