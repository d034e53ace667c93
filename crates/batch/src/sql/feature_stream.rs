//! Tables of features while they are read: first what the rows are of, then a sweep, then its rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use futures_util::stream::{StreamExt, try_unfold};
use headwater_facts::{FactLog, Lookup};
use headwater_features::{CompiledView, PreparedFacts};
use headwater_schema::{
    Cursor, EntityKey, Field as KeyField, Micros, Position, Problem, Sequence, Value,
    array_from_values,
};

use super::Snapshot;
use super::bounds::Bounds;
use super::facts_table::{EVENT_TIME, SEQUENCE, instant};
use super::feature_columns::{FeatureColumns, FeatureRows};
use super::feature_tables::NamedBy;
use super::interruptible::StopWhenDropped;
use super::log_scan::blocking;
use super::problem::through;
use super::result::{answer_rows, answer_schema};
use super::stoppable::Stoppable;
use crate::sweep::Few;
use crate::{Stop, Sweep};

/// Rows of a view's history that are put together at a time.
const GATHERED_ROWS: usize = 8192;

/// What the rows of a table of features are of.
#[derive(Debug, Clone)]
pub enum Of {
    /// The entities that a plan finds, all at one cursor.
    Found(Arc<dyn ExecutionPlan>, Cursor),
    /// Those of some entities that facts name by a cursor, all at it.
    Named(Vec<EntityKey>, Vec<NamedBy>, Cursor),
    /// The facts of a view, each at itself.
    Facts {
        view: Arc<CompiledView>,
        bounds: Bounds,
        /// The entities that the filter names; none: all may pass.
        named: Option<Vec<EntityKey>>,
        /// Of the keys and the fact's place, as the table has them.
        filter: Option<Arc<dyn PhysicalExpr>>,
        /// Facts that are enough, where nothing filters them.
        limit: Option<usize>,
    },
}

/// A scan of a table of features.
pub struct FeatureStream {
    pub snapshot: Arc<Snapshot>,
    pub columns: FeatureColumns,
    pub projection: Vec<usize>,
    pub schema: SchemaRef,
    pub of: Of,
}

impl std::fmt::Debug for FeatureStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.of {
            Of::Found(_, cursor) | Of::Named(.., cursor) => {
                write!(f, "features as of {}", cursor.as_of)
            }
            Of::Facts { view, .. } => write!(f, "the history of {}", view.name),
        }
    }
}

/// A sweep's rows, and what ends with them.
struct Reading {
    rows: FeatureRows,
    _memory: MemoryReservation,
}

impl PartitionStream for FeatureStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, tasks: Arc<TaskContext>) -> SendableRecordBatchStream {
        let scan = Scan {
            snapshot: self.snapshot.clone(),
            columns: self.columns.clone(),
            projection: self.projection.clone(),
            of: self.of.clone(),
            stop: Stop::default(),
        };
        let guard = StopWhenDropped(scan.stop.clone());
        let start = (Some(scan), None::<Reading>, guard);
        let stream = try_unfold(start, move |(scan, reading, guard)| {
            let tasks = tasks.clone();
            async move {
                let mut reading = match (reading, scan) {
                    (Some(reading), _) => reading,
                    (None, Some(scan)) => scan.begin(&tasks).await?,
                    (None, None) => return Ok(None),
                };
                let next = blocking(move || {
                    let rows = reading.rows.next()?;
                    Ok(rows.map(|rows| (rows, reading)))
                });
                let next = next.await?;
                Ok(next.map(|(rows, reading)| (rows, (None, Some(reading), guard))))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

struct Scan {
    snapshot: Arc<Snapshot>,
    columns: FeatureColumns,
    projection: Vec<usize>,
    of: Of,
    stop: Stop,
}

impl Scan {
    fn facts(&self) -> Stoppable {
        Stoppable {
            env: self.snapshot.env.clone(),
            facts: self.snapshot.facts.clone(),
            stop: self.stop.clone(),
        }
    }

    async fn begin(self, tasks: &Arc<TaskContext>) -> Result<Reading> {
        let memory = MemoryConsumer::new("features").register(tasks.memory_pool());
        memory.try_grow(self.snapshot.sweep.memory_bytes_max)?;
        match &self.of {
            Of::Found(plan, cursor) => {
                let cursor = *cursor;
                let of = entities(plan, tasks, &memory).await?;
                blocking(move || {
                    let rows = self.sweep(of, |_, _| cursor)?;
                    Ok(Reading {
                        rows,
                        _memory: memory,
                    })
                })
                .await
            }
            Of::Named(keys, by, cursor) => {
                let (keys, by, cursor) = (keys.clone(), by.clone(), *cursor);
                blocking(move || {
                    let of = self.of_those(&keys, &by, cursor)?;
                    let rows = self.sweep(vec![of], |_, _| cursor)?;
                    Ok(Reading {
                        rows,
                        _memory: memory,
                    })
                })
                .await
            }
            Of::Facts { .. } => {
                blocking(move || {
                    let of = self.history(&memory)?;
                    let keys = self.columns.keys.len();
                    let known_at = self.snapshot.known_at;
                    let rows = self.sweep(of, |rows, row| {
                        let time = Value::from_array(rows.column(keys), row);
                        let sequence = Value::from_array(rows.column(keys + 1), row);
                        let (time, sequence) = match (time, sequence) {
                            (Value::Timestamp(time), Value::Int(sequence)) => (time, sequence),
                            _ => (Micros::MIN, 0),
                        };
                        let after = Position::new(time, sequence.cast_unsigned() + 1);
                        Cursor::before_fact(after).known_at(known_at)
                    })?;
                    Ok(Reading {
                        rows,
                        _memory: memory,
                    })
                })
                .await
            }
        }
    }

    fn sweep(
        &self,
        of: Vec<RecordBatch>,
        cursor: impl Fn(&RecordBatch, usize) -> Cursor,
    ) -> Result<FeatureRows> {
        let (facts, catalog) = (self.facts(), &self.snapshot.catalog);
        let rows = FeatureRows::begin(
            &self.columns,
            &self.projection,
            of,
            &facts,
            catalog,
            &self.snapshot.sweep,
            cursor,
        );
        rows.map_err(through)
    }

    /// Those of some entities that facts name by a cursor.
    fn of_those(
        &self,
        keys: &[EntityKey],
        named_by: &[NamedBy],
        cursor: Cursor,
    ) -> Result<RecordBatch> {
        let facts = self.facts();
        let is_named = |key: &EntityKey| {
            for by in named_by {
                let found = facts.lookup(&Lookup {
                    contract: by.contract.name.clone(),
                    key_columns: by.columns.clone(),
                    key: key.clone(),
                    from: Position::MIN,
                    until: cursor.until,
                    known_at: cursor.known_at,
                    newest: Some(1),
                })?;
                if !found.order.is_empty() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let mut named = Vec::new();
        for key in keys {
            if is_named(key).map_err(through)? {
                named.push(values_of(key.as_bytes())?);
            }
        }
        let (fields, arrays) = key_columns(&self.columns.keys, &named)?;
        let options = RecordBatchOptions::new().with_row_count(Some(named.len()));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    /// The facts of a view that count at the cursor: their entities and places.
    fn history(&self, memory: &MemoryReservation) -> Result<Vec<RecordBatch>> {
        let Of::Facts {
            view,
            bounds,
            named,
            filter,
            limit,
        } = &self.of
        else {
            return Ok(Vec::new());
        };
        let facts = self.facts();
        let sweep = Sweep {
            env: &facts.env,
            facts: &facts,
            catalog: &self.snapshot.catalog,
            options: self.snapshot.sweep.clone(),
        };
        let end = self.snapshot.known_at;
        let mut gathered = Gathered {
            columns: &self.columns,
            filter: filter.as_ref(),
            memory,
            keys: Vec::new(),
            places: Vec::new(),
            batches: Vec::new(),
            left: limit.unwrap_or(usize::MAX),
        };
        let within = |place: Position| {
            (bounds.time_min..=bounds.time_max).contains(&place.event_time)
                && (bounds.sequence_min..=bounds.sequence_max).contains(&place.sequence)
        };
        let few = named.clone().map(|keys| Few {
            keys,
            from: Position::before(bounds.time_min),
            until: Position::new(bounds.time_max, Sequence::MAX),
            known_at: end,
        });
        let found = few.map(|few| sweep.facts_of_few(view, &few));
        if let Some(found) = found.transpose().map_err(through)?.flatten() {
            for prepared in found {
                gathered.take(&prepared, within)?;
            }
            return gathered.finish();
        }
        for (index, source) in view.sources.iter().enumerate() {
            let removed = facts.removed(&source.contract, 1, end).map_err(through)?;
            memory.try_grow(size_of_val(removed.as_slice()))?;
            let counts = |sequence: Sequence| {
                let place = removed.binary_search_by_key(&sequence, |(s, _)| *s);
                place.map_or(true, |place| removed[place].1 > end)
            };
            for prepared in sweep.facts_of(view, index, end).map_err(through)? {
                if gathered.left == 0 {
                    break;
                }
                let prepared = prepared.map_err(through)?;
                gathered.take(&prepared, |place| within(place) && counts(place.sequence))?;
            }
            memory.try_shrink(size_of_val(removed.as_slice()))?;
        }
        gathered.finish()
    }
}

/// The entities that a plan finds, of types of the project.
async fn entities(
    plan: &Arc<dyn ExecutionPlan>,
    tasks: &Arc<TaskContext>,
    memory: &MemoryReservation,
) -> Result<Vec<RecordBatch>> {
    let schema = answer_schema(&plan.schema());
    let mut found = execute_stream(plan.clone(), tasks.clone())?;
    let mut batches = Vec::new();
    while let Some(rows) = found.next().await {
        let rows = answer_rows(&schema, &rows?)?;
        memory.try_grow(rows.get_array_memory_size())?;
        batches.push(rows);
    }
    Ok(batches)
}

/// The values of an entity's keys.
fn values_of(key: &[u8]) -> Result<Vec<Value>> {
    let values = EntityKey::from_bytes(key).to_values();
    values.ok_or_else(|| {
        through(Problem::internal(
            "features-table",
            "the key of an entity is none",
        ))
    })
}

/// Keys of entities as columns of types of the project.
fn key_columns(keys: &[KeyField], rows: &[Vec<Value>]) -> Result<(Vec<Field>, Vec<ArrayRef>)> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let values = rows.iter().map(|row| &row[place]);
        arrays.push(array_from_values(&key.data_type, values).map_err(through)?);
        fields.push(Field::new(
            key.name.as_ref(),
            key.data_type.to_arrow(),
            true,
        ));
    }
    Ok((fields, arrays))
}

/// Entities and places on their way into batches.
struct Gathered<'a> {
    columns: &'a FeatureColumns,
    filter: Option<&'a Arc<dyn PhysicalExpr>>,
    memory: &'a MemoryReservation,
    keys: Vec<Vec<Value>>,
    places: Vec<Position>,
    batches: Vec<RecordBatch>,
    /// How many more are wanted.
    left: usize,
}

impl Gathered<'_> {
    /// Takes those facts whose places pass.
    fn take(&mut self, facts: &PreparedFacts, passes: impl Fn(Position) -> bool) -> Result<()> {
        for row in 0..facts.len() {
            let place = facts.rows.position(row);
            if self.left > 0 && passes(place) {
                self.left -= 1;
                self.keys.push(values_of(facts.key(row))?);
                self.places.push(place);
                if self.places.len() >= GATHERED_ROWS {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (keys, places) = (
            std::mem::take(&mut self.keys),
            std::mem::take(&mut self.places),
        );
        let (mut fields, mut arrays) = key_columns(&self.columns.keys, &keys)?;
        let times =
            TimestampMicrosecondArray::from_iter_values(places.iter().map(|p| p.event_time));
        arrays.push(Arc::new(times.with_timezone("UTC")));
        fields.push(Field::new(EVENT_TIME, instant(), false));
        let sequences = places.iter().map(|p| p.sequence as i64);
        arrays.push(Arc::new(Int64Array::from_iter_values(sequences)));
        fields.push(Field::new(
            SEQUENCE,
            arrow::datatypes::DataType::Int64,
            false,
        ));
        let mut rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        if let Some(filter) = self.filter {
            rows = filter_record_batch(&rows, &passes(filter, &rows, self.columns)?)?;
        }
        self.memory.try_grow(rows.get_array_memory_size())?;
        if rows.num_rows() > 0 {
            self.batches.push(rows);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>> {
        self.flush()?;
        Ok(self.batches)
    }
}

/// Which rows a filter of the table's own columns lets pass.
fn passes(
    filter: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    columns: &FeatureColumns,
) -> Result<BooleanArray> {
    let places: Vec<usize> = (0..rows.num_columns()).collect();
    let schema = Arc::new(columns.schema.project(&places)?);
    let pairs = rows.columns().iter().zip(schema.fields());
    let arrays = pairs.map(|(column, field)| cast(column, field.data_type()));
    let rows = RecordBatch::try_new(
        schema.clone(),
        arrays.collect::<std::result::Result<_, _>>()?,
    )?;
    let passed = filter.evaluate(&rows)?.into_array(rows.num_rows())?;
    let passed = passed.as_any().downcast_ref::<BooleanArray>().cloned();
    passed.ok_or_else(|| DataFusionError::Internal("a filter is no condition".into()))
}
