//! Rows of a list of features: which views give which of them, and what each view says of each row's entity.
//!
//! Live reads and reads of what was taken elsewhere go through here.

use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_aggregate::Outcome;
use headwater_features::{EntityRequest, ReadPlan, Resolved, entity_key};
use headwater_schema::{Cursor, EntityKey, Problem};

use crate::{InForce, Processor, ServedView};

/// The features of a list that one view gives.
pub struct ViewReads {
    pub view: Arc<ServedView>,
    pub plan: ReadPlan,
    /// For each feature of `plan`, its place in the answer.
    places: Vec<usize>,
}

impl ViewReads {
    /// The views that give the features of a list, each with those that it gives.
    pub fn of(in_force: &InForce, resolved: &Resolved) -> Result<Vec<Self>, Problem> {
        let mut views: Vec<(&Arc<ServedView>, Vec<usize>, Vec<usize>)> = Vec::new();
        for (place, feature) in resolved.features.iter().enumerate() {
            let view = in_force.view(&feature.view.name).ok_or_else(|| {
                Problem::internal("unknown-view", "a feature's view isn't served")
            })?;
            match views.iter_mut().find(|(v, _, _)| Arc::ptr_eq(v, view)) {
                Some((_, wanted, places)) => {
                    wanted.push(feature.index);
                    places.push(place);
                }
                None => views.push((view, vec![feature.index], vec![place])),
            }
        }
        let reads = |(view, wanted, places): (&Arc<ServedView>, Vec<usize>, Vec<usize>)| Self {
            view: view.clone(),
            plan: ReadPlan::new(view.view().clone(), wanted),
            places,
        };
        Ok(views.into_iter().map(reads).collect())
    }

    /// Puts the features that the view gives of each row into the row's places.
    pub fn place(
        &self,
        picked: impl Iterator<Item = Vec<Outcome>>,
        rows: &mut [Vec<Option<Outcome>>],
    ) {
        for (row, picked) in rows.iter_mut().zip(picked) {
            for (place, outcome) in self.places.iter().zip(picked) {
                row[*place] = Some(outcome);
            }
        }
    }

    /// Puts the columns of the features that the view gives into their places.
    pub fn place_columns(&self, picked: Vec<ArrayRef>, columns: &mut [Option<ArrayRef>]) {
        for (place, column) in self.places.iter().zip(picked) {
            columns[*place] = Some(column);
        }
    }

    /// Reads the view's features of each row's entity at a cursor, into the rows.
    pub fn read(
        &self,
        processor: &Processor,
        entities: &[EntityRequest],
        cursor: &Cursor,
        rows: &mut [Vec<Option<Outcome>>],
    ) -> Result<(), Problem> {
        let entity = &self.plan.view().entity;
        let mut outcomes: Vec<Vec<Outcome>> = Vec::with_capacity(rows.len());
        // Candidates that are ranked for one user share the user.
        let mut last: Option<EntityKey> = None;
        for (index, asked) in entities.iter().enumerate() {
            let key =
                entity_key(entity, asked).map_err(|p| p.field(format!("entities[{index}]")))?;
            let same = outcomes.last().filter(|_| last.as_ref() == Some(&key));
            let read = match same {
                Some(same) => same.clone(),
                None => processor.read(&self.view, &self.plan, &key, cursor)?,
            };
            outcomes.push(read);
            last = Some(key);
        }
        self.plan.derive(&mut outcomes)?;
        self.place(outcomes.iter().map(|row| self.plan.pick(row)), rows);
        Ok(())
    }
}
