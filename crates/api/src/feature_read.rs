//! What is checked of a read of features before the backend is asked, whatever protocol it came by: what it names, how
//! much it asks for, and which row has a key that is none. Each protocol reads keys from its own messages; whether a
//! feature, an entity or a key column of some name exists, the backend says.

use headwater_schema::Problem;

use crate::backend::{EntityRequest, Names};
use crate::error::{ApiError, malformed};
use crate::limits::Limits;

/// A list of features or a feature set, where a request has a place for each.
pub(crate) fn list_or_set(
    features: Option<Vec<String>>,
    feature_set: Option<String>,
) -> Result<Names, ApiError> {
    match (features, feature_set) {
        (Some(features), None) => Ok(Names::List(features)),
        (None, Some(set)) => Ok(Names::Set(set)),
        _ => Err(malformed("name either `features` or a `feature_set`")),
    }
}

/// Refuses a read of too much. Counts are enough, so that no row of one that is refused has to be read.
pub(crate) fn check_size(
    names: &Names,
    entities: usize,
    context: usize,
    limits: &Limits,
) -> Result<(), ApiError> {
    // How large a set is was decided where it was defined.
    if let Names::List(list) = names {
        limits.check_features(list.len())?;
    }
    limits.check_entities("entities", entities)?;
    limits.check_entities("context", context)
}

/// The entities of all rows, each as its protocol reads one.
pub(crate) fn entities<Row>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<EntityRequest, Problem>,
) -> Result<Vec<EntityRequest>, ApiError> {
    let rows = rows.iter().enumerate();
    rows.map(|(index, row)| in_row(index, read(row))).collect()
}

/// The entities of one row. A problem names the key that it is about; whoever asked has to know the row, too.
pub(crate) fn in_row(
    index: usize,
    read: Result<EntityRequest, Problem>,
) -> Result<EntityRequest, ApiError> {
    read.map_err(|problem| {
        let key = problem.field.clone().unwrap_or_default();
        ApiError(problem.field(format!("entities[{index}].{key}")))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use headwater_features::entity_request;
    use serde_json::{Value as Json, json};

    use super::*;

    fn list(count: usize) -> Names {
        Names::List(vec!["view.feature".to_owned(); count])
    }

    fn set() -> Names {
        Names::Set("set".to_owned())
    }

    #[test]
    fn a_list_or_a_set_is_named_and_not_both() {
        let features = || Some(vec!["view.feature".to_owned()]);
        let feature_set = || Some("set".to_owned());
        let named = |features, feature_set| list_or_set(features, feature_set).map_err(|e| e.0);
        assert_eq!(named(features(), None), Ok(list(1)));
        assert_eq!(named(None, feature_set()), Ok(set()));
        for (features, feature_set) in [(features(), feature_set()), (None, None)] {
            let problem = named(features, feature_set).unwrap_err();
            assert_eq!(problem.code, "malformed-request");
        }
    }

    #[test]
    fn what_there_is_too_much_of_is_told_with_its_limit() {
        let limits = Limits {
            features_max: 2,
            entities_max: 3,
            ..Limits::default()
        };
        let check =
            |names: &Names, entities, context| check_size(names, entities, context, &limits);
        assert!(check(&list(2), 3, 3).is_ok());
        let too_much = [
            (list(3), 4, 4, "features", "limits.features_max"),
            (set(), 4, 4, "entities", "limits.entities_max"),
            (set(), 3, 4, "context", "limits.entities_max"),
        ];
        for (names, entities, context, field, setting) in too_much {
            let problem = check(&names, entities, context).unwrap_err().0;
            assert_eq!(problem.code, "limit");
            assert_eq!(problem.field.as_deref(), Some(field));
            assert!(problem.hint.contains(setting), "{problem}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_told_with_its_row() {
        let row = |key: Json| BTreeMap::from([("customer".to_owned(), key)]);
        let rows = [row(json!("ada")), row(json!([]))];
        let problem = entities(&rows, entity_request).unwrap_err().0;
        assert_eq!(problem.code, "wrong-key-type");
        assert_eq!(problem.field.as_deref(), Some("entities[1].customer"));
    }
}
