//! Which alias answers which row: the one that the request names, or the arm of the model's traffic that its entity
//! falls to. The same entity falls to the same arm in every process, as long as shares stay.

use std::sync::Arc;

use headwater_features::{Entity, EntityRequest, KeyValue, Model, Traffic};
use headwater_schema::{Problem, Value, value_to_text};
use xxhash_rust::xxh3::xxh3_64;

use crate::InputRows;
use crate::loaded::{LIVE, Served};
use crate::rows::count;

/// An alias or version that answers, and how likely that was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub name: Arc<str>,
    pub propensity: f64,
    /// The experiment whose arm it is.
    pub experiment: Option<Arc<str>>,
}

/// Who answers a request.
pub(crate) struct Routes {
    pub choices: Vec<Choice>,
    /// Of each row: the place of its choice.
    pub by_row: Vec<usize>,
}

/// Ends a text in what is hashed; no text holds it.
const END: u8 = 0xff;

/// Shares a request's rows out. `number` tells requests apart where no entity does.
pub(crate) fn route(
    model: &Model,
    served: &Served,
    rows: &InputRows,
    asked: Option<&str>,
    number: u64,
) -> Result<Routes, Problem> {
    let all = count(rows);
    let one = |name: &str| Routes {
        choices: vec![Choice {
            name: name.into(),
            propensity: 1.0,
            experiment: None,
        }],
        by_row: vec![0; all],
    };
    match (asked, &model.traffic) {
        (Some(asked), _) => Ok(one(asked)),
        (None, Some(traffic)) if !traffic.arms.is_empty() => {
            Arms::of(traffic, served).route(traffic, rows, all, number)
        }
        (None, _) => Ok(one(LIVE)),
    }
}

/// The arms that have a version, each with the end of its share; `live` has the rest.
struct Arms {
    ends: Vec<f64>,
    choices: Vec<Choice>,
}

impl Arms {
    fn of(traffic: &Traffic, served: &Served) -> Self {
        let mut arms = Self {
            ends: Vec::new(),
            choices: Vec::new(),
        };
        let mut push = |name: &Arc<str>, propensity| {
            arms.choices.push(Choice {
                name: name.clone(),
                propensity,
                experiment: Some(traffic.experiment.clone()),
            });
        };
        let (mut end, mut taken) = (0.0, 0.0);
        for arm in &traffic.arms {
            let start = end;
            end += arm.share;
            if served.record.aliases.contains_key(arm.alias.as_ref()) {
                // Places without a version are `live`'s.
                arms.ends.push(start);
                arms.ends.push(end);
                taken += arm.share;
                push(&arm.alias, arm.share);
            }
        }
        push(&LIVE.into(), (1.0 - taken).max(0.0));
        arms
    }

    /// Whose share a place between 0 and 1 is in.
    fn at(&self, place: f64) -> usize {
        let mut shares = self.ends.chunks_exact(2);
        let found = shares.position(|share| (share[0]..share[1]).contains(&place));
        found.unwrap_or(self.choices.len() - 1)
    }

    fn route(
        self,
        traffic: &Traffic,
        rows: &InputRows,
        all: usize,
        number: u64,
    ) -> Result<Routes, Problem> {
        let place = |subject: &[u8]| place(&traffic.experiment, subject);
        let by_row = match (&traffic.by, rows) {
            (
                Some(entity),
                InputRows::Entities {
                    entities,
                    candidates,
                    ..
                },
            ) if candidates.as_ref().is_none_or(|c| c.entity != *entity.name) => {
                let each = |(row, asked)| Ok(self.at(place(&subject(entity, asked, row)?)));
                let arms: Result<Vec<usize>, Problem> =
                    entities.iter().enumerate().map(each).collect();
                match (candidates, arms?.as_slice()) {
                    // All candidates are one entity's.
                    (Some(_), [arm]) => vec![*arm; all],
                    (Some(_), _) => vec![0; all],
                    (None, arms) => arms.to_vec(),
                }
            }
            (
                Some(entity),
                InputRows::Entities {
                    candidates: Some(candidates),
                    ..
                },
            ) => {
                let each = |(row, id): (usize, &KeyValue)| {
                    let asked = EntityRequest::from([(entity.name.to_string(), id.clone())]);
                    Ok(self.at(place(&subject(entity, &asked, row)?)))
                };
                let ids = candidates.ids.iter().enumerate();
                ids.map(each).collect::<Result<_, Problem>>()?
            }
            _ => vec![self.at(place(&number.to_le_bytes())); all],
        };
        Ok(self.only_used(by_row))
    }

    /// Leaves out arms that no row falls to: they needn't be asked.
    fn only_used(self, mut by_row: Vec<usize>) -> Routes {
        let mut moved = vec![None; self.choices.len()];
        let mut choices = Vec::new();
        for arm in &mut by_row {
            *arm = *moved[*arm].get_or_insert_with(|| {
                choices.push(self.choices[*arm].clone());
                choices.len() - 1
            });
        }
        Routes { choices, by_row }
    }
}

/// Where a subject stands between 0 and 1 in an experiment. Never change it: entities would change arms.
fn place(experiment: &str, subject: &[u8]) -> f64 {
    let hashed = [experiment.as_bytes(), &[END], subject].concat();
    (xxh3_64(&hashed) >> 11) as f64 / (1u64 << 53) as f64
}

/// The keys of the entity that a row names, one after another.
fn subject(entity: &Entity, asked: &EntityRequest, row: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let named = asked.get(entity.name.as_ref());
    for key in &entity.keys {
        let given = match named {
            Some(KeyValue::Columns(columns)) => columns.get(key.name.as_ref()),
            Some(KeyValue::Scalar(value)) => Some(value),
            None => match asked.get(key.name.as_ref()) {
                Some(KeyValue::Scalar(value)) => Some(value),
                _ => None,
            },
        };
        let given = given.filter(|v| **v != Value::Null).ok_or_else(|| {
            Problem::user(
                "missing-key",
                format!("the request doesn't name the entity `{}`", entity.name),
            )
            .field(format!("entities[{row}]"))
            .detail(format!("its key column `{}` is missing or null", key.name))
            .hint("the model's `traffic` is shared out by it")
        })?;
        bytes.extend_from_slice(value_to_text(given).as_bytes());
        bytes.push(END);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_even_and_stay_where_they_are() {
        // What earlier processes said.
        let told = ["a", "b", "c"].map(|name| place("late", name.as_bytes()));
        assert_eq!(
            told,
            [0.19646954309883735, 0.9996017961404328, 0.2322396920525691]
        );
        let below = |share: f64| {
            let all = (0..10_000).filter(|n| place("late", n.to_string().as_bytes()) < share);
            all.count() as f64 / 10_000.0
        };
        for share in [0.01, 0.1, 0.5, 0.9] {
            assert!((below(share) - share).abs() < 0.015, "{share}");
        }
        // Experiments share entities out independently of each other.
        let both = (0..10_000)
            .map(|n| n.to_string())
            .filter(|n| place("one", n.as_bytes()) < 0.5 && place("two", n.as_bytes()) < 0.5);
        assert!((2300..2700).contains(&both.count()));
    }
}
