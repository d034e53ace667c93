//! Lists of values in an order, of at most `n`: by the total order of their facts, or by themselves.
//!
//! Facts of two lists that are merged are never the same; equal positions are elements of one fact, in one list, and
//! keep the order they came in.

use std::cmp::Ordering;

use headwater_schema::{Position, Value};

/// A value with the place of its fact.
pub type Placed = (Position, Value);

/// Inserts into a list of the `n` oldest values, oldest first.
pub fn insert_oldest(list: &mut Vec<Placed>, n: usize, position: Position, value: &Value) {
    let at = list.partition_point(|(p, _)| *p <= position);
    insert_within(list, n, at, (position, value));
}

/// Inserts into a list of the `n` newest values, newest first.
pub fn insert_newest(list: &mut Vec<Placed>, n: usize, position: Position, value: &Value) {
    let at = list.partition_point(|(p, _)| *p > position);
    insert_within(list, n, at, (position, value));
}

/// Inserts into a list of the `n` distinct values seen latest, newest first.
pub fn insert_newest_distinct(list: &mut Vec<Placed>, n: usize, position: Position, value: &Value) {
    if let Some(known) = list.iter().position(|(_, v)| v == value) {
        if list[known].0 > position {
            return;
        }
        list.remove(known);
    }
    insert_newest(list, n, position, value);
}

fn insert_within(
    list: &mut Vec<Placed>,
    n: usize,
    at: usize,
    (position, value): (Position, &Value),
) {
    if at < n {
        list.truncate(n - 1);
        list.insert(at, (position, value.clone()));
    }
}

/// Inserts into a list of the `n` values that come first in `order`.
pub fn insert_ranked(
    list: &mut Vec<Value>,
    n: usize,
    value: &Value,
    order: fn(&Value, &Value) -> Ordering,
) {
    let at = list.partition_point(|v| order(v, value).is_le());
    if at < n {
        list.truncate(n - 1);
        list.insert(at, value.clone());
    }
}

/// Joins two lists of the `n` values that come first in `order`.
pub fn merge_ranked(
    list: &mut Vec<Value>,
    n: usize,
    others: &[Value],
    order: fn(&Value, &Value) -> Ordering,
) {
    let mut others = others.iter().peekable();
    let mut merged = Vec::with_capacity(n.min(list.len() + others.len()));
    for value in list.drain(..) {
        while let Some(other) = others.next_if(|other| order(other, &value).is_lt()) {
            merged.push(other.clone());
        }
        merged.push(value);
        if merged.len() >= n {
            break;
        }
    }
    merged.extend(others.cloned());
    merged.truncate(n);
    *list = merged;
}

/// The value of the fact that `order_by` chooses.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    pub order: Value,
    pub position: Position,
    pub value: Value,
}

impl Chosen {
    /// Keeps `other` where it comes first: by `order`, then by the total order of facts.
    pub fn keep(kept: &mut Option<Box<Self>>, other: &Self, greatest: bool) {
        let first = |old: &Self| {
            let by_order = match greatest {
                true => old.order.cmp(&other.order),
                false => other.order.cmp(&old.order),
            };
            by_order.then(other.position.cmp(&old.position)).is_lt()
        };
        if kept.as_deref().is_none_or(first) {
            *kept = Some(Box::new(other.clone()));
        }
    }
}
