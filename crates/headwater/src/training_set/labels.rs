//! The labels of a training set: what became of each row by its horizon, read by the same sweep as the features.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use headwater_batch::{Moment, SweptRows};
use headwater_features::Label;
use headwater_schema::{Problem, Value, array_from_values};

use super::Made;
use crate::Engine;

/// What a label says of the spine's rows, from the first to the last.
pub(super) struct SweptLabel {
    place: usize,
    view: SweptRows,
}

impl Engine {
    /// Labels by name; none is asked for twice.
    pub(super) fn labels(&self, names: &[String]) -> Result<Vec<Arc<Label>>, Problem> {
        let catalog = self.catalog();
        let mut labels: Vec<Arc<Label>> = Vec::with_capacity(names.len());
        for name in names {
            let label = catalog.label(name)?;
            if labels.iter().any(|l| l.name == label.name) {
                let title = format!("the label `{name}` is asked for twice");
                return Err(Problem::user("name-clash", title)
                    .field("labels")
                    .hint("name it once"));
            }
            labels.push(label.clone());
        }
        Ok(labels)
    }

    pub(super) fn swept_labels(&self, made: &Made) -> Result<Vec<SweptLabel>, Problem> {
        let catalog = self.catalog();
        let sweep = self.sweep(&catalog, made);
        let swept = |(place, label): (usize, &Arc<Label>)| {
            let moments = made.chunks().flat_map(|(first, rows)| {
                match self.label_moments(made, place, &rows, first) {
                    Ok(moments) => moments
                        .into_iter()
                        .map(|m| Ok(m.unwrap_or_else(nobody)))
                        .collect(),
                    Err(problem) => vec![Err(problem)],
                }
            });
            let view = sweep.features_until(&label.plan(), moments, &made.stop)?;
            Ok(SweptLabel { place, view })
        };
        made.labels.iter().enumerate().map(swept).collect()
    }

    /// Where the label of each row is read; none where it is unknown: of rows that are about nobody, and before
    /// the horizon.
    fn label_moments(
        &self,
        made: &Made,
        place: usize,
        rows: &RecordBatch,
        first: usize,
    ) -> Result<Vec<Option<Moment>>, Problem> {
        let label = &made.labels[place];
        let entity = made.plan.shape.entities.len() + place;
        let keys = made.columns.keys(entity, rows, first)?;
        let moments = made.columns.moments(rows, first)?;
        let moment = |(key, moment)| {
            let time = self.cursor(made, moment)?.as_of;
            let cursor = label.cursor(time, made.labels_as_of);
            // An outcome is known after its row, whatever the row itself may know.
            let cursor = cursor.map(|c| c.known_at(made.end));
            Ok(Option::zip(key, cursor).map(|(key, cursor)| Moment {
                key: Some(key),
                cursor,
            }))
        };
        keys.into_iter().zip(&moments).map(moment).collect()
    }

    /// The label's column of the next rows.
    pub(super) fn label_column(
        &self,
        made: &Made,
        swept: &mut SweptLabel,
        rows: &RecordBatch,
        first: usize,
    ) -> Result<ArrayRef, Problem> {
        let label = &made.labels[swept.place];
        let known = self.label_moments(made, swept.place, rows, first)?;
        let (column, counted) = swept.view.take_counted(rows.num_rows())?;
        let value = |(row, known): (usize, &Option<Moment>)| match known {
            Some(_) => label.value(Value::from_array(&column, row), counted[row]),
            None => Value::Null,
        };
        let values: Vec<Value> = known.iter().enumerate().map(value).collect();
        array_from_values(label.data_type(), values.iter())
    }
}

/// Stands for a row that isn't read.
fn nobody() -> Moment {
    Moment {
        key: None,
        cursor: headwater_schema::Cursor::inclusive(headwater_schema::Micros::MAX),
    }
}
