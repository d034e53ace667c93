//! Fields of facts that their contract doesn't know: they are kept with the facts, and counted here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_schema::FactBatch;
use serde::de::IgnoredAny;

/// Names that are told apart, of one contract; the fields of more are counted together.
pub const NAMES_MAX: usize = 100;
/// Bytes of a name that is told apart.
const NAME_BYTES_MAX: usize = 128;

/// What facts of one contract brought besides the contract's fields, since the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownFields {
    /// Facts with any.
    pub facts: u64,
    /// Fields of all those facts.
    pub fields: u64,
    /// How many facts had each.
    pub names: BTreeMap<String, u64>,
    /// Fields whose names are too many or too long to be told apart.
    pub others: u64,
}

impl UnknownFields {
    fn add(&mut self, batch: &FactBatch) {
        let texts = batch.unknown_fields.iter().flat_map(|texts| texts.iter());
        for text in texts.flatten() {
            let names = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text);
            self.facts += 1;
            for name in names.unwrap_or_default().into_keys() {
                self.fields += 1;
                if let Some(count) = self.names.get_mut(&name) {
                    *count += 1;
                } else if self.names.len() < NAMES_MAX && name.len() <= NAME_BYTES_MAX {
                    self.names.insert(name, 1);
                } else {
                    self.others += 1;
                }
            }
        }
    }
}

/// The same, of every contract.
#[derive(Default)]
pub(crate) struct UnknownCounts(Mutex<BTreeMap<Arc<str>, UnknownFields>>);

impl UnknownCounts {
    /// Counts facts that were taken.
    pub fn add(&self, batch: &FactBatch) {
        if batch.unknown_fields.is_some() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            counts.entry(batch.contract.clone()).or_default().add(batch);
        }
    }

    pub fn read(&self) -> BTreeMap<Arc<str>, UnknownFields> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }

    pub fn of(&self, contract: &str) -> UnknownFields {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(contract).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::record_batch::RecordBatch;

    use super::*;

    fn batch(texts: Vec<Option<String>>) -> FactBatch {
        FactBatch {
            contract: "visit".into(),
            columns: RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())),
            event_times: vec![0; texts.len()],
            fact_ids: None,
            unknown_fields: Some(StringArray::from(texts)),
        }
    }

    #[test]
    fn names_are_told_apart_up_to_a_limit_and_all_are_counted() {
        let counts = UnknownCounts::default();
        let text = |text: &str| Some(text.to_owned());
        counts.add(&batch(vec![
            text(r#"{"a": 1, "b": {"a": 2}}"#),
            None,
            text(r#"{"a": null}"#),
        ]));
        let seen = counts.of("visit");
        assert_eq!((seen.facts, seen.fields, seen.others), (2, 3, 0));
        assert_eq!((seen.names["a"], seen.names["b"]), (2, 1));
        assert_eq!(counts.of("other"), UnknownFields::default());
        let many = (0..NAMES_MAX).map(|i| Some(format!(r#"{{"n{i}": 1, "a": 1}}"#)));
        counts.add(&batch(many.collect()));
        counts.add(&batch(vec![Some(format!(
            r#"{{"{}": 1}}"#,
            "x".repeat(1000)
        ))]));
        let seen = counts.of("visit");
        assert_eq!(
            (seen.names.len(), seen.names["a"], seen.others),
            (NAMES_MAX, 102, 3)
        );
        assert_eq!(seen.fields, seen.names.values().sum::<u64>() + seen.others);
    }
}
