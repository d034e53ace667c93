//! Features as columns of a table: how they are called, which views give them, and the rows that sweeps make of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use headwater_features::{Catalog, FeatureRef, FeatureSet, ReadPlan};
use headwater_schema::{Cursor, EntityKey, Field as KeyField, Problem, Value};

use super::archive_scan::table_type;
use super::facts_table::{EVENT_TIME, SEQUENCE, instant};
use super::problem::through;
use super::stoppable::Stoppable;
use crate::{Moment, Stop, Sweep, SweepOptions, SweptRows};

/// Rows of features that are put together at a time.
pub const CHUNK_ROWS: usize = 1024;

/// The columns of a table of features: the keys of entities, maybe a fact's place, then the features.
#[derive(Debug, Clone)]
pub struct FeatureColumns {
    pub keys: Vec<KeyField>,
    /// Whether the event time and the sequence of a fact follow the keys.
    pub placed: bool,
    features: Vec<FeatureRef>,
    /// What is worked out of the features besides; none where that takes a request's own fields.
    set: Option<Arc<FeatureSet>>,
    pub schema: SchemaRef,
}

/// The features that one view gives.
struct Part {
    plan: ReadPlan,
    /// The places of its entity's keys among the keys.
    keys: Vec<usize>,
    /// For each feature of the plan, its place among the features.
    places: Vec<usize>,
}

impl FeatureColumns {
    pub fn new(
        features: Vec<FeatureRef>,
        set: Option<&Arc<FeatureSet>>,
        placed: bool,
    ) -> std::result::Result<Self, Problem> {
        let mut keys: Vec<KeyField> = Vec::new();
        for feature in &features {
            for key in &feature.view.entity.keys {
                match keys.iter().find(|known| known.name == key.name) {
                    None => keys.push(key.clone()),
                    Some(known) if known.data_type == key.data_type => {}
                    Some(known) => return Err(two_types(known, key)),
                }
            }
        }
        let set = set.filter(|set| set.context.is_empty() && !set.on_demand.is_empty());
        let mut fields: Vec<Field> = keys.iter().map(field).collect();
        if placed {
            fields.push(Field::new(EVENT_TIME, instant(), false));
            fields.push(Field::new(
                SEQUENCE,
                arrow::datatypes::DataType::Int64,
                false,
            ));
        }
        let taken: BTreeSet<String> = fields.iter().map(|f| f.name().clone()).collect();
        let named = features.iter().map(|f| {
            let f = f.feature();
            (f.name.as_ref(), f.full_name.as_ref(), &f.data_type)
        });
        let on_demand = set.iter().flat_map(|set| &set.on_demand);
        let on_demand = on_demand.map(|f| (f.name.as_ref(), f.full_name.as_ref(), &f.data_type));
        let named: Vec<_> = named.chain(on_demand).collect();
        for (name, full_name, data_type) in &named {
            let alone = named.iter().filter(|other| other.0 == *name).count() == 1;
            let called = match alone && !taken.contains(*name) {
                true => name,
                false => full_name,
            };
            fields.push(Field::new(*called, table_type(data_type.to_arrow()), true));
        }
        Ok(Self {
            keys,
            placed,
            set: set.cloned(),
            features,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// The place of the first feature among the columns.
    fn first(&self) -> usize {
        self.keys.len() + if self.placed { 2 } else { 0 }
    }

    /// What has to be read for some columns, view by view.
    fn parts(&self, projection: &[usize]) -> Vec<Part> {
        let (first, count) = (self.first(), self.features.len());
        let asked = projection
            .iter()
            .filter_map(|place| place.checked_sub(first));
        let mut asked: BTreeSet<usize> = asked.collect();
        if asked.iter().any(|place| *place >= count) {
            asked = (0..count).collect();
        }
        let mut views: Vec<(Vec<usize>, Vec<usize>, &FeatureRef)> = Vec::new();
        for place in asked {
            let feature = &self.features[place];
            let same =
                |(_, _, known): &&mut (_, _, &FeatureRef)| Arc::ptr_eq(&known.view, &feature.view);
            match views.iter_mut().find(same) {
                Some((wanted, places, _)) => {
                    wanted.push(feature.index);
                    places.push(place);
                }
                None => views.push((vec![feature.index], vec![place], feature)),
            }
        }
        let part = |(wanted, places, feature): (Vec<usize>, Vec<usize>, &FeatureRef)| Part {
            plan: ReadPlan::new(feature.view.clone(), wanted),
            keys: self.places_of(&feature.view.entity.keys),
            places,
        };
        views.into_iter().map(part).collect()
    }

    fn places_of(&self, keys: &[KeyField]) -> Vec<usize> {
        let place = |key: &KeyField| self.keys.iter().position(|k| k.name == key.name);
        keys.iter().filter_map(place).collect()
    }
}

fn field(key: &KeyField) -> Field {
    Field::new(
        key.name.as_ref(),
        table_type(key.data_type.to_arrow()),
        true,
    )
}

fn two_types(one: &KeyField, other: &KeyField) -> Problem {
    Problem::user("two-types", format!("the key `{}` has two types", one.name))
        .field("sql")
        .detail(format!("{} and {}", one.data_type, other.data_type))
        .hint("ask for the features of one entity at a time")
}

/// Rows of features on their way: what they are of is known, what they are is worked out chunk by chunk.
pub struct FeatureRows {
    columns: FeatureColumns,
    projection: Vec<usize>,
    /// The keys, and a fact's place where the table has it, of types of the project.
    of: std::vec::IntoIter<RecordBatch>,
    parts: Vec<(Part, SweptRows)>,
    schema: SchemaRef,
}

impl FeatureRows {
    /// Sweeps over the facts: rows of `of`, in their order, each at its own cursor.
    pub fn begin(
        columns: &FeatureColumns,
        projection: &[usize],
        of: Vec<RecordBatch>,
        facts: &Stoppable,
        catalog: &Catalog,
        options: &SweepOptions,
        cursor: impl Fn(&RecordBatch, usize) -> Cursor,
    ) -> std::result::Result<Self, Problem> {
        let sweep = Sweep {
            env: &facts.env,
            facts,
            catalog,
            options: options.clone(),
        };
        let stop: &Stop = &facts.stop;
        let mut parts = Vec::new();
        for part in columns.parts(projection) {
            let moments = of.iter().flat_map(|rows| {
                let part = &part;
                let cursor = &cursor;
                (0..rows.num_rows()).map(move |row| {
                    stop.check()?;
                    let keys = part.keys.iter();
                    let keys: Vec<Value> = keys
                        .map(|place| Value::from_array(rows.column(*place), row))
                        .collect();
                    Ok(Moment {
                        key: EntityKey::from_values(&keys),
                        cursor: cursor(rows, row),
                    })
                })
            });
            let swept = sweep.features_until(&part.plan, moments, stop)?;
            parts.push((part, swept));
        }
        let chunks = of.iter().flat_map(|rows| {
            let starts = (0..rows.num_rows()).step_by(CHUNK_ROWS);
            starts.map(|at| rows.slice(at, CHUNK_ROWS.min(rows.num_rows() - at)))
        });
        let chunks: Vec<RecordBatch> = chunks.collect();
        let schema = columns.schema.project(projection);
        Ok(Self {
            schema: Arc::new(schema.map_err(|e| internal(&e))?),
            columns: columns.clone(),
            projection: projection.to_vec(),
            of: chunks.into_iter(),
            parts,
        })
    }

    /// The next rows; none at the end.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(of) = self.of.next() else {
            return Ok(None);
        };
        let rows = of.num_rows();
        let width = self.columns.features.len();
        let mut found: Vec<Option<ArrayRef>> = vec![None; width];
        for (part, swept) in &mut self.parts {
            let read = swept.take(rows).map_err(through)?;
            for (place, column) in part.places.iter().zip(read) {
                found[*place] = Some(column);
            }
        }
        // What isn't asked for isn't read.
        let found = found.into_iter().enumerate().map(|(feature, column)| {
            let null = || new_null_array(&self.data_type(feature).to_arrow(), rows);
            column.unwrap_or_else(null)
        });
        let mut found: Vec<ArrayRef> = found.collect();
        if let Some(set) = &self.columns.set {
            found = set
                .derive_columns(found, Vec::new(), rows)
                .map_err(through)?;
        }
        let first = self.columns.first();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.projection.len());
        for (place, field) in self.projection.iter().zip(self.schema.fields()) {
            let column = match place.checked_sub(first) {
                None => of.column(*place).clone(),
                Some(feature) => found[feature].clone(),
            };
            arrays.push(match column.data_type() == field.data_type() {
                true => column,
                false => cast(&column, field.data_type())?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = self.schema.clone();
        Ok(Some(RecordBatch::try_new_with_options(
            schema, arrays, &options,
        )?))
    }

    fn data_type(&self, feature: usize) -> headwater_schema::DataType {
        let features = &self.columns.features;
        match (features.get(feature), &self.columns.set) {
            (Some(feature), _) => feature.feature().data_type.clone(),
            (None, Some(set)) => set.on_demand[feature - features.len()].data_type.clone(),
            (None, None) => headwater_schema::DataType::String,
        }
    }
}

fn internal(error: &arrow::error::ArrowError) -> Problem {
    Problem::internal("features-table", "features can't be put into columns").detail(error)
}
