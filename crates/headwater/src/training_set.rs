//! Training sets: a spine's rows, each with the features that a live read at its cursor gives.
//!
//! What is wrong with the spine is told before the first feature is read; a table is written beside its
//! place and takes it only when it is whole.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use headwater_api::backend::{KnownAt, Names, TrainingKnownAt, TrainingSetRequest};
use headwater_batch::{
    KeyShape, KnownRule, Manifest, Moment, OutputFormat, RowMoment, Spine, SpineColumns,
    SpineShape, Stop, Sweep, SweepOptions, SweptRows, TableWriter, fact_positions, sha256_hex,
};
use headwater_facts::FactLog;
use headwater_features::{Catalog, Label, Registry};
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::parse_timestamp;
use headwater_schema::{Cursor, Micros, Position, Problem, Sequence, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::reader::Plan;
use crate::table_file::{FileOut, beside, manifest_path, unwritable};

mod labels;
mod manifest;

pub(crate) use manifest::feature_definitions;
pub use manifest::request_of;

/// Rows that are read and written together.
const CHUNK_ROWS: usize = 4096;

/// How training sets are made.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSetSettings {
    /// About how many bytes of facts, moments and features one of them holds in memory, beside its spine; more is
    /// written to the data folder meanwhile.
    pub memory_bytes_max: usize,
    /// How many are made at once; one more is refused.
    pub running_max: usize,
}

impl Default for TrainingSetSettings {
    fn default() -> Self {
        Self {
            memory_bytes_max: 1 << 30,
            running_max: 2,
        }
    }
}

/// Counts the training sets that are being made.
pub(crate) struct Making {
    pub settings: TrainingSetSettings,
    running: AtomicUsize,
}

impl Making {
    pub fn new(settings: TrainingSetSettings) -> Self {
        Self {
            settings,
            running: AtomicUsize::new(0),
        }
    }

    /// Counts one more until what is given is dropped.
    fn begin(&self) -> Result<Running<'_>, Problem> {
        let running = Running(&self.running);
        if running.0.fetch_add(1, Ordering::Relaxed) < self.settings.running_max {
            return Ok(running);
        }
        Err(
            Problem::external("busy", "too many training sets are being made")
                .detail(format!(
                    "{} at once (`training_sets.running_max`)",
                    self.settings.running_max
                ))
                .hint("try again once one of them is done")
                .retryable(),
        )
    }
}

/// One that is being made.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A training set that is ready to be read.
struct Made {
    names: Names,
    time: String,
    plan: Arc<Plan>,
    registry: Arc<Registry>,
    spine: Spine,
    spine_sha256: String,
    columns: SpineColumns,
    schema: SchemaRef,
    labels: Vec<Arc<Label>>,
    /// When the labels are looked at.
    labels_as_of: Micros,
    inclusive: bool,
    rule: KnownRule,
    /// The last sequence that any row sees.
    end: Sequence,
    facts: HashMap<(String, String), Position>,
    /// Says when nobody waits for it any more.
    stop: Stop,
}

impl Engine {
    /// Reads a training set in memory, as an Arrow stream.
    pub fn training_set(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &[u8],
    ) -> Result<Vec<u8>, Problem> {
        self.training_set_until(request, format, spine, &Stop::default())
    }

    /// As [`Engine::training_set`], unless it is told to stop before it is whole.
    pub fn training_set_until(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &[u8],
        stop: &Stop,
    ) -> Result<Vec<u8>, Problem> {
        let _running = self.making.begin()?;
        let mut made = self.make(request, format, spine, None)?;
        made.stop = stop.clone();
        let mut out = Vec::new();
        self.write_rows(&made, OutputFormat::ArrowStream, &mut out)?;
        Ok(out)
    }

    /// Writes a training set to a file, and its manifest beside it. `again` is the manifest of one that is
    /// to be made again: what would not be the same is refused.
    pub fn write_training_set(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &[u8],
        out: &Path,
        again: Option<&Manifest>,
    ) -> Result<Manifest, Problem> {
        let extension = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let table = OutputFormat::from_extension(extension).ok_or_else(|| {
            Problem::user(
                "unsupported-format",
                format!("a training set isn't written to files that end in `{extension}`"),
            )
            .hint("name the file .parquet, .arrow or .csv")
        })?;
        let _running = self.making.begin()?;
        let made = self.make(request, format, spine, again)?;
        let beside = beside(out);
        let files = &self.env.files;
        let written = self.write_file(&made, table, &beside, again);
        let manifest = match written {
            Ok(manifest) => manifest,
            Err(problem) => {
                let _ = files.remove_file(&beside);
                return Err(problem);
            }
        };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Problem::internal("manifest", "a manifest can't be written").detail(e))?;
        let path = manifest_path(out);
        if files.exists(&path) {
            // A crash from here on leaves a table without a manifest, never with another's.
            files.remove_file(&path).map_err(unwritable)?;
        }
        files.rename(&beside, out).map_err(unwritable)?;
        files.write_atomic(&path, &text).map_err(unwritable)?;
        Ok(manifest)
    }

    /// Everything that can be checked before the first read.
    fn make(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        body: &[u8],
        again: Option<&Manifest>,
    ) -> Result<Made, Problem> {
        let plan = self.reader.plan(&request.names)?;
        let labels = self.labels(&request.labels)?;
        let added = plan.names.iter().chain(labels.iter().map(|l| &l.name));
        let shape = SpineShape {
            entities: key_shapes(&plan, &labels),
            context: plan.set.as_ref().map_or(Vec::new(), |s| s.context.clone()),
            time: request.time.clone(),
            added: added.cloned().collect(),
        };
        let spine = Spine::read(format, body, &shape.time, &shape.wanted())?;
        let columns = SpineColumns::find(&spine.schema, &shape)?;
        let (rule, asked) = match (request.known_at, columns.has_known_at()) {
            (None, true) => (KnownRule::Column, None),
            (None, false) => (KnownRule::Everything, None),
            (Some(_), true) => {
                return Err(Problem::user(
                    "two-cursors",
                    "the spine has a column `known_at`, and the request says `known_at` too",
                )
                .field("known_at")
                .hint("leave one of them out"));
            }
            (Some(TrainingKnownAt::Arrival), false) => (KnownRule::AsOfArrival, None),
            (Some(TrainingKnownAt::Until(at)), false) => (KnownRule::Everything, Some(at)),
        };
        let mut made = Made {
            names: request.names.clone(),
            time: request.time.clone(),
            schema: schema(&spine.schema, &plan, &labels),
            labels,
            labels_as_of: request.labels_as_of.unwrap_or(self.env.clock.now()),
            registry: self.reader.definitions().1,
            plan,
            spine_sha256: sha256_hex(body),
            columns,
            inclusive: request.inclusive,
            rule,
            end: self.known_at(asked.or(again.map(|m| KnownAt::Sequence(m.facts.1))))?,
            facts: HashMap::new(),
            stop: Stop::default(),
            spine,
        };
        if let Some(again) = again {
            made.refuse_changes(again)?;
        }
        let mut wanted = BTreeSet::new();
        for (first, rows) in made.chunks() {
            for moment in made.columns.moments(&rows, first)? {
                wanted.extend(moment.fact.clone());
                if moment.fact.is_none() {
                    self.cursor(&made, &moment)?;
                }
            }
        }
        made.facts = fact_positions(self.facts.as_ref(), &wanted, made.end)?;
        Ok(made)
    }

    fn cursor(&self, made: &Made, moment: &RowMoment) -> Result<Cursor, Problem> {
        let cursor = match (&moment.fact, moment.as_of) {
            (Some(fact), _) => {
                let position = made.facts.get(fact).copied();
                Cursor::before_fact(position.ok_or_else(|| {
                    Problem::internal("training-set", "a fact's place isn't known")
                })?)
            }
            (None, Some(as_of)) if made.inclusive => Cursor::inclusive(as_of),
            (None, as_of) => Cursor::exclusive(as_of.unwrap_or_default()),
        };
        let known = match (made.rule, &moment.known_at) {
            (KnownRule::AsOfArrival, _) => Some(KnownAt::Instant(cursor.as_of)),
            (KnownRule::Column, Some(value)) => Some(row_known_at(value)?),
            _ => None,
        };
        let known = match known {
            Some(known) => self.known_at(Some(known))?.min(made.end),
            None => made.end,
        };
        Ok(cursor.known_at(known))
    }

    /// A sweep for one of the views and labels of a training set. What the others found is held meanwhile, a quarter of what
    /// each of them may take.
    fn sweep<'a>(&'a self, catalog: &'a Catalog, made: &Made) -> Sweep<'a> {
        let sweeps = made.plan.views.len() + made.labels.len();
        Sweep {
            env: &self.env,
            facts: self.facts.as_ref(),
            catalog,
            options: SweepOptions {
                memory_bytes_max: self.making.settings.memory_bytes_max / (sweeps + 3) * 4,
                spill_folder: self.data.spill(),
            },
        }
    }

    /// What each view says of every row, in the rows' order.
    fn swept(&self, made: &Made) -> Result<Vec<SweptRows>, Problem> {
        let catalog = self.catalog();
        let sweep = self.sweep(&catalog, made);
        let mut views = Vec::new();
        for reads in &made.plan.views {
            let entity = &reads.plan.view().entity.name;
            let mut entities = made.plan.shape.entities.iter();
            let place = entities.position(|e| e.name == *entity).unwrap_or_default();
            let moments = made.chunks().flat_map(|(first, rows)| {
                match self.moments(made, place, &rows, first) {
                    Ok(moments) => moments.into_iter().map(Ok).collect(),
                    Err(problem) => vec![Err(problem)],
                }
            });
            views.push(sweep.features_until(&reads.plan, moments, &made.stop)?);
        }
        Ok(views)
    }

    /// One entity at the cursor of each row.
    fn moments(
        &self,
        made: &Made,
        entity: usize,
        rows: &RecordBatch,
        first: usize,
    ) -> Result<Vec<Moment>, Problem> {
        let keys = made.columns.keys(entity, rows, first)?;
        let moments = made.columns.moments(rows, first)?;
        let pairs = keys.into_iter().zip(&moments);
        pairs
            .map(|(key, moment)| {
                let cursor = self.cursor(made, moment)?;
                Ok(Moment { key, cursor })
            })
            .collect()
    }

    /// Writes all rows; how many values of each feature are null.
    fn write_rows(
        &self,
        made: &Made,
        format: OutputFormat,
        out: &mut (dyn Write + Send),
    ) -> Result<Vec<usize>, Problem> {
        let mut nulls = vec![0; made.plan.names.len() + made.labels.len()];
        let mut views = self.swept(made)?;
        let mut labels = self.swept_labels(made)?;
        let mut table = TableWriter::new(format, &made.schema, Box::new(out))?;
        for (first, rows) in made.chunks() {
            made.stop.check()?;
            let mut found = vec![None; made.plan.features];
            for (reads, view) in made.plan.views.iter().zip(&mut views) {
                reads.place_columns(view.take(rows.num_rows())?, &mut found);
            }
            let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
            let context = made.columns.context(&rows, first)?;
            columns.extend(made.plan.finish_columns(found, context, rows.num_rows())?);
            for label in &mut labels {
                columns.push(self.label_column(made, label, &rows, first)?);
            }
            let added = &columns[rows.num_columns()..];
            for (nulls, column) in nulls.iter_mut().zip(added) {
                *nulls += column.null_count();
            }
            let rows = RecordBatch::try_new(made.schema.clone(), columns).map_err(|e| {
                Problem::internal("training-set", "rows can't be put together").detail(e)
            })?;
            table.write(&rows)?;
        }
        table.finish()?;
        Ok(nulls)
    }

    fn write_file(
        &self,
        made: &Made,
        format: OutputFormat,
        path: &Path,
        again: Option<&Manifest>,
    ) -> Result<Manifest, Problem> {
        let files = &self.env.files;
        if files.exists(path) {
            files.remove_file(path).map_err(unwritable)?;
        }
        let file = files.open_append(path).map_err(unwritable)?;
        let mut out = io::BufWriter::new(FileOut::new(file));
        let nulls = self.write_rows(made, format, &mut out)?;
        let mut file = out.into_inner().map_err(|e| {
            Problem::external("unwritable", "the training set can't be written").detail(e.error())
        })?;
        file.sync().map_err(unwritable)?;
        let first = self.facts.first_sequence();
        let manifest = made.manifest(first, nulls, format, file.sha256());
        if let Some(again) = again {
            manifest::refuse_other_bytes(again, &manifest)?;
        }
        Ok(manifest)
    }
}

impl Made {
    /// The spine's rows, some at a time, and the number of the first of them.
    fn chunks(&self) -> impl Iterator<Item = (usize, RecordBatch)> {
        let mut first = 0;
        self.spine.batches.iter().flat_map(move |batch| {
            let begins = first;
            first += batch.num_rows();
            let slices = (0..batch.num_rows()).step_by(CHUNK_ROWS);
            slices.map(move |at| {
                let rows = CHUNK_ROWS.min(batch.num_rows() - at);
                (begins + at, batch.slice(at, rows))
            })
        })
    }
}

/// Whom rows are about: the entities of the features, then what each label is matched by.
fn key_shapes(plan: &Plan, labels: &[Arc<Label>]) -> Vec<KeyShape> {
    let entities = plan.shape.entities.iter();
    let entities = entities.map(|e| (&e.name, e.keys.as_slice()));
    let all = entities.chain(labels.iter().map(|l| l.keys()));
    all.map(|(entity, keys)| KeyShape {
        entity: entity.clone(),
        keys: keys.to_vec(),
    })
    .collect()
}

/// The spine's own columns, then the features, then the labels.
fn schema(spine: &SchemaRef, plan: &Plan, labels: &[Arc<Label>]) -> SchemaRef {
    let mut fields: Vec<Arc<ArrowField>> = spine.fields().iter().cloned().collect();
    let features = plan.names.iter().zip(&plan.shape.types);
    for (name, data_type) in features.chain(labels.iter().map(|l| (&l.name, l.data_type()))) {
        fields.push(Arc::new(ArrowField::new(
            name.as_ref(),
            data_type.to_arrow(),
            true,
        )));
    }
    Arc::new(Schema::new(fields))
}

/// A row's own `known_at`: a sequence, or an instant.
fn row_known_at(value: &Value) -> Result<KnownAt, Problem> {
    let wrong = |detail: String| {
        Problem::user(
            "invalid-sequence",
            "a row's `known_at` is neither a sequence nor an instant",
        )
        .field("known_at")
        .detail(detail)
        .hint("use a `sequence` that a reply gave, or RFC 3339 with an offset")
    };
    match value {
        Value::Int(sequence) => Sequence::try_from(*sequence)
            .map(KnownAt::Sequence)
            .map_err(|e| wrong(e.to_string())),
        Value::Timestamp(at) => Ok(KnownAt::Instant(*at)),
        Value::String(text) => match text.parse() {
            Ok(sequence) => Ok(KnownAt::Sequence(sequence)),
            Err(_) => parse_timestamp(text, None)
                .map(KnownAt::Instant)
                .map_err(wrong),
        },
        other => Err(wrong(headwater_schema::value_to_text(other))),
    }
}
