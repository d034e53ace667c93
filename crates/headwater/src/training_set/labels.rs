//! The labels of a training set: what became of each row by its horizon, read by the same sweep as the features.

use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_batch::{Moment, SweptRows};
use headwater_features::{Catalog, Label};
use headwater_schema::{Problem, Value, array_from_values};

use super::{Chunk, Made};
use crate::Engine;

/// What a label says of the spine's rows, from the first to the last.
pub(super) struct SweptLabel {
    place: usize,
    view: SweptRows,
}

/// Labels by name; none is asked for twice.
pub(super) fn named(catalog: &Catalog, names: &[String]) -> Result<Vec<Arc<Label>>, Problem> {
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

impl Engine {
    pub(super) fn swept_labels(&self, made: &Made<'_>) -> Result<Vec<SweptLabel>, Problem> {
        let sweep = self.sweep(made);
        let swept = |(place, label): (usize, &Arc<Label>)| {
            let moments = made.each_moment(|chunk| {
                let moments = made.label_moments(place, chunk)?.into_iter();
                Ok(moments.map(|m| m.unwrap_or_else(nobody)).collect())
            });
            let (plan, stop) = (label.plan(), made.work.stop);
            let progress = made.sweep_progress(made.plan.views.len() + place);
            let view = sweep.features_with_progress(&plan, moments, stop, &progress)?;
            Ok(SweptLabel { place, view })
        };
        made.labels.iter().enumerate().map(swept).collect()
    }
}

impl Made<'_> {
    /// Where the label of each row is read; none where it is unknown: of rows that are about nobody, and before
    /// the horizon.
    fn label_moments(&self, place: usize, chunk: &Chunk) -> Result<Vec<Option<Moment>>, Problem> {
        let label = &self.labels[place];
        let entity = self.plan.shape.entities.len() + place;
        let keys = self.spine.columns.keys(entity, &chunk.rows, chunk.first)?;
        let rows = keys.into_iter().zip(&chunk.cursors);
        let moments = rows.map(|(key, row)| {
            // An outcome is known after its row, whatever the row itself may know.
            let cursor = label.cursor(row.as_of, self.labels_as_of)?;
            let cursor = cursor.known_at(self.spine.end);
            key.map(|key| Moment {
                key: Some(key),
                cursor,
            })
        });
        Ok(moments.collect())
    }

    /// The label's column of the next rows.
    pub(super) fn label_column(
        &self,
        swept: &mut SweptLabel,
        chunk: &Chunk,
    ) -> Result<ArrayRef, Problem> {
        let label = &self.labels[swept.place];
        let known = self.label_moments(swept.place, chunk)?;
        let (column, counted) = swept.view.take_counted(chunk.rows.num_rows())?;
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
