//! Entity keys from requests: by the entity's name, or by its key columns where they say it all.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use headwater_schema::contract::suggest;
use headwater_schema::time::parse_timestamp;
use headwater_schema::{DataType, EntityKey, Problem, Value};

use crate::{Catalog, Entity, EntityRequest, KeyValue};

/// The key of `entity` that a request names.
pub fn entity_key(entity: &Entity, asked: &EntityRequest) -> Result<EntityKey, Problem> {
    let mut values = Vec::with_capacity(entity.keys.len());
    let named = asked.get(entity.name.as_ref());
    for key in &entity.keys {
        let given = match named {
            Some(KeyValue::Columns(columns)) => {
                check_columns(entity, columns.keys())?;
                columns.get(key.name.as_ref())
            }
            Some(KeyValue::Scalar(value)) if entity.keys.len() == 1 => Some(value),
            Some(KeyValue::Scalar(_)) => return Err(needs_columns(entity)),
            None => match asked.get(key.name.as_ref()) {
                Some(KeyValue::Scalar(value)) => Some(value),
                _ => None,
            },
        };
        let given = given.ok_or_else(|| missing(entity, &key.name))?;
        values.push(typed(entity, &key.name, &key.data_type, given)?);
    }
    EntityKey::from_values(&values)
        .ok_or_else(|| Problem::internal("entity-key", "key values don't make a key"))
}

/// Names by which a request may name entities: their own, and those of their key columns.
pub fn entity_names(catalog: &Catalog) -> HashSet<Arc<str>> {
    let names = |entity: &Arc<Entity>| {
        let keys: Vec<Arc<str>> = entity.keys.iter().map(|k| k.name.clone()).collect();
        keys.into_iter()
            .chain([entity.name.clone()])
            .collect::<Vec<_>>()
    };
    catalog.entities().flat_map(names).collect()
}

/// Refuses what no entity is named by: what is misspelled would be read as left out.
pub fn check_entity_names(known: &HashSet<Arc<str>>, asked: &EntityRequest) -> Result<(), Problem> {
    let Some(unknown) = asked.keys().find(|name| !known.contains(name.as_str())) else {
        return Ok(());
    };
    let nearest = headwater_schema::contract::nearest(unknown, known.iter().map(|n| n.as_ref()));
    let problem = Problem::user(
        "unknown-key",
        format!("no entity and no key column is named `{unknown}`"),
    );
    Err(match nearest {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint(
            "name entities, or their key columns; `headwater registry list entity` shows them",
        ),
    })
}

/// The entity that a request of one entity names, and its key. Its key columns may be named instead
/// of the entity itself; values that come as text are read as the key columns' types.
pub fn entity_key_for<'a>(
    catalog: &'a Catalog,
    asked: &EntityRequest,
) -> Result<(&'a Arc<Entity>, EntityKey), Problem> {
    let named = asked.keys().next().map(String::as_str).unwrap_or_default();
    let entity = catalog.entity(named).ok_or_else(|| {
        let known = catalog.entities().map(|e| e.name.as_ref());
        Problem::user("unknown-entity", format!("there is no entity `{named}`"))
            .hint(suggest(named, known))
    })?;
    let mut asked = asked.clone();
    read_as_typed(entity, &mut asked);
    entity_key(entity, &asked).map(|key| (entity, key))
}

/// Reads key values that came as text (from a URL, a command line) as the types of the entity's keys.
fn read_as_typed(entity: &Entity, asked: &mut EntityRequest) {
    for key in &entity.keys {
        let value = match asked.get_mut(entity.name.as_ref()) {
            Some(KeyValue::Columns(columns)) => columns.get_mut(key.name.as_ref()),
            Some(KeyValue::Scalar(value)) => Some(value),
            None => None,
        };
        if let Some(value) = value {
            *value = from_text(value, &key.data_type);
        }
    }
}

/// The same of every entity that a request names, itself or by key columns alone. A column whose name entities of
/// several types share stays text.
pub fn read_all_as_typed<'a>(
    entities: impl Iterator<Item = &'a Entity>,
    asked: &mut EntityRequest,
) {
    // None: of several types.
    let mut columns: BTreeMap<&str, Option<&DataType>> = BTreeMap::new();
    let mut names = HashSet::new();
    for entity in entities {
        read_as_typed(entity, asked);
        names.insert(entity.name.as_ref());
        for key in &entity.keys {
            let known = columns.entry(&key.name).or_insert(Some(&key.data_type));
            *known = known.filter(|known| **known == key.data_type);
        }
    }
    for (name, value) in asked {
        let data_type = columns.get(name.as_str()).copied().flatten();
        if let (KeyValue::Scalar(value), Some(data_type), false) =
            (value, data_type, names.contains(name.as_str()))
        {
            *value = from_text(value, data_type);
        }
    }
}

/// Text from a URL or a command line as an integer or a bool, where the key is one.
fn from_text(value: &Value, data_type: &DataType) -> Value {
    let parsed = match (value, data_type) {
        (Value::String(text), DataType::Int64) => text.parse().ok().map(Value::Int),
        (Value::String(text), DataType::Bool) => text.parse().ok().map(Value::Bool),
        _ => None,
    };
    parsed.unwrap_or_else(|| value.clone())
}

fn check_columns<'a>(
    entity: &Entity,
    mut named: impl Iterator<Item = &'a String>,
) -> Result<(), Problem> {
    let is_key = |name: &str| entity.keys.iter().any(|k| k.name.as_ref() == name);
    match named.find(|name| !is_key(name)) {
        None => Ok(()),
        Some(unknown) => Err(Problem::user(
            "unknown-key",
            format!("the entity `{}` has no key column `{unknown}`", entity.name),
        )
        .hint(format!("write it as {}", example(entity)))),
    }
}

fn missing(entity: &Entity, column: &str) -> Problem {
    Problem::user(
        "missing-key",
        format!("the request doesn't name the entity `{}`", entity.name),
    )
    .detail(format!("its key column `{column}` is missing or null"))
    .hint(format!("add {}", example(entity)))
}

fn needs_columns(entity: &Entity) -> Problem {
    Problem::user(
        "missing-key",
        format!("the entity `{}` has several key columns", entity.name),
    )
    .hint(format!("write it as {}", example(entity)))
}

fn example(entity: &Entity) -> String {
    let columns: Vec<String> = entity
        .keys
        .iter()
        .map(|k| format!("\"{}\": …", k.name))
        .collect();
    match columns.as_slice() {
        [_] => format!("{{\"{}\": …}}", entity.name),
        _ => format!("{{\"{}\": {{{}}}}}", entity.name, columns.join(", ")),
    }
}

/// A key value of the column's type; strings are read as dates and times where the column has them.
fn typed(
    entity: &Entity,
    column: &str,
    data_type: &DataType,
    given: &Value,
) -> Result<Value, Problem> {
    let wrong = || {
        Problem::user(
            "wrong-key-type",
            format!("the key `{column}` of `{}` has a wrong type", entity.name),
        )
        .detail(format!(
            "it is {data_type}; given is {}",
            headwater_schema::value_to_text(given)
        ))
        .hint("integers are written without quotes, strings with them, times as RFC 3339")
    };
    match (data_type, given) {
        (_, Value::Null) => Err(missing(entity, column)),
        (DataType::String, Value::String(_))
        | (DataType::Int64, Value::Int(_))
        | (DataType::Bool, Value::Bool(_)) => Ok(given.clone()),
        (DataType::Timestamp, Value::Int(v)) => Ok(Value::Timestamp(*v)),
        (DataType::Timestamp, Value::String(v)) => parse_timestamp(v, None)
            .map(Value::Timestamp)
            .map_err(|e| wrong().detail(e)),
        (DataType::Date, Value::String(v)) => {
            let midnight = parse_timestamp(&format!("{v}T00:00:00Z"), None).map_err(|_| wrong())?;
            let day = midnight.div_euclid(86_400_000_000);
            i32::try_from(day).map(Value::Date).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}
