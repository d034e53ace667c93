//! Tables of features while they are read: first what the rows are of, then a sweep, then its rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
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
use headwater_facts::FactLog;
use headwater_features::CompiledView;
use headwater_schema::array_from_values;
use headwater_schema::{Cursor, EntityKey, Micros, Position, Problem, Sequence, Value};

use super::Snapshot;
use super::bounds::Bounds;
use super::facts_table::{EVENT_TIME, SEQUENCE, instant};
use super::feature_columns::{FeatureColumns, FeatureRows};
use super::log_scan::blocking;
use super::problem::through;
use super::result::{answer_rows, answer_schema};
use super::stoppable::Stoppable;
use crate::{Stop, Sweep};

/// Rows of a view's history that are put together at a time.
const GATHERED_ROWS: usize = 8192;

/// What the rows of a table of features are of.
#[derive(Debug, Clone)]
pub enum Of {
    /// The entities that a plan finds, all at one cursor.
    Entities(Arc<dyn ExecutionPlan>, Cursor),
    /// The facts of a view, each at itself.
    Facts {
        view: Arc<CompiledView>,
        bounds: Bounds,
        /// Of the keys and the fact's place, as the table has them.
        filter: Option<Arc<dyn PhysicalExpr>>,
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
            Of::Entities(_, cursor) => write!(f, "features as of {}", cursor.as_of),
            Of::Facts { view, .. } => write!(f, "the history of {}", view.name),
        }
    }
}

/// Tells a sweep to stop when nobody reads it any more.
struct StopWhenDropped(Stop);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
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
            Of::Entities(plan, cursor) => {
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

    /// The facts of a view that count at the cursor: their entities and places.
    fn history(&self, memory: &MemoryReservation) -> Result<Vec<RecordBatch>> {
        let Of::Facts {
            view,
            bounds,
            filter,
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
        };
        for (index, source) in view.sources.iter().enumerate() {
            let removed = facts.removed(&source.contract, 1, end).map_err(through)?;
            memory.try_grow(size_of_val(removed.as_slice()))?;
            let counts = |sequence: Sequence| {
                let place = removed.binary_search_by_key(&sequence, |(s, _)| *s);
                place.map_or(true, |place| removed[place].1 > end)
            };
            for prepared in sweep.facts_of(view, index, end).map_err(through)? {
                let prepared = prepared.map_err(through)?;
                for row in 0..prepared.len() {
                    let place = prepared.rows.position(row);
                    let within = (bounds.time_min..=bounds.time_max).contains(&place.event_time)
                        && (bounds.sequence_min..=bounds.sequence_max).contains(&place.sequence);
                    if within && counts(place.sequence) {
                        gathered.push(prepared.key(row), place)?;
                    }
                }
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

/// Entities and places on their way into batches.
struct Gathered<'a> {
    columns: &'a FeatureColumns,
    filter: Option<&'a Arc<dyn PhysicalExpr>>,
    memory: &'a MemoryReservation,
    keys: Vec<Vec<Value>>,
    places: Vec<Position>,
    batches: Vec<RecordBatch>,
}

impl Gathered<'_> {
    fn push(&mut self, key: &[u8], place: Position) -> Result<()> {
        let values = EntityKey::from_bytes(key).to_values();
        self.keys.push(values.ok_or_else(|| {
            through(Problem::internal(
                "features-table",
                "the key of an entity is none",
            ))
        })?);
        self.places.push(place);
        match self.places.len() >= GATHERED_ROWS {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let (keys, places) = (
            std::mem::take(&mut self.keys),
            std::mem::take(&mut self.places),
        );
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (place, key) in self.columns.keys.iter().enumerate() {
            let values = keys.iter().map(|row| &row[place]);
            arrays.push(array_from_values(&key.data_type, values).map_err(through)?);
            fields.push(Field::new(
                key.name.as_ref(),
                key.data_type.to_arrow(),
                true,
            ));
        }
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
