//! Training sets: a spine's rows, each with the features that a live read at its cursor gives.
//!
//! What is wrong with the spine is told before the first feature is read. Neither spine nor table is held as a whole: rows
//! come in chunks and leave in chunks. A table is written beside its place and takes it only when it is whole.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use headwater_api::backend::TrainingSetRequest;
use headwater_batch::{
    KeyShape, Manifest, Moment, OutputFormat, Pieces, ProgressHook, Spill, SpillLimit, SpineShape,
    SpineTime, Step, Stop, Sweep, SweepOptions, SweepProgress, SweptRows, TableWriter,
    spine_format, spool,
};
use headwater_env::ReadFile;
use headwater_facts::FactLog;
use headwater_features::{Label, Registry};
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Cursor, DataType, Micros, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::parts::unreadable;
use crate::reader::Plan;
use crate::table_file::{refuse_own_spine, table_format, write_table};

mod labels;
mod manifest;
mod spine;

pub(crate) use manifest::feature_definitions;
pub use manifest::{refuse_changes, refuse_other_bytes, request_of};
pub(crate) use spine::Chunk;
use spine::{Spine, Taking};

/// A spine that comes piece by piece is held while it is no larger than this.
const SPOOLED_BYTES_HELD: usize = 4 << 20;
/// Under this name the metadata of an Arrow stream hold the manifest, as far as it is known before the first row.
pub const MANIFEST_METADATA: &str = "headwater.manifest";

/// How training sets are made.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSetSettings {
    /// About how many bytes of its spine, of facts, moments and features one of them holds in memory; more is written
    /// to the data folder meanwhile.
    pub memory_bytes_max: usize,
    /// Bytes that one of them may have there at once.
    pub spill_bytes_max: u64,
    /// Bytes of a spine that is sent over HTTP.
    pub spine_bytes_max: u64,
    /// How many are made at once; one more is refused.
    pub running_max: usize,
}

impl Default for TrainingSetSettings {
    fn default() -> Self {
        Self {
            memory_bytes_max: 1 << 30,
            spill_bytes_max: 64 << 30,
            spine_bytes_max: 4 << 30,
            running_max: 2,
        }
    }
}

/// Counts the training sets that are being made, and the tables of scores: both are the same work.
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
    pub fn begin(&self) -> Result<Running<'_>, Problem> {
        let running = Running(&self.running);
        if running.0.fetch_add(1, Ordering::Relaxed) < self.settings.running_max {
            return Ok(running);
        }
        Err(
            Problem::external("busy", "too many training sets and scores are being made")
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
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one of them works with.
pub(crate) struct Work<'a> {
    spill: Arc<Spill>,
    limit: SpillLimit,
    pub stop: &'a Stop,
    pub progress: ProgressHook,
}

/// What a spine is read by.
pub(crate) struct Asked<'a> {
    pub request: &'a TrainingSetRequest,
    pub plan: Arc<Plan>,
    pub registry: Arc<Registry>,
    pub time: SpineTime,
    /// Whether facts at a row's moment itself count, where that is said.
    pub inclusive: Option<bool>,
    /// The names of the columns that are added.
    pub added: Vec<Arc<str>>,
    pub labels: Vec<Arc<Label>>,
}

/// A training set that is ready to be read.
pub(crate) struct Made<'a> {
    request: &'a TrainingSetRequest,
    pub work: &'a Work<'a>,
    pub plan: Arc<Plan>,
    pub registry: Arc<Registry>,
    pub spine: Spine,
    labels: Vec<Arc<Label>>,
    /// When the labels are looked at.
    labels_as_of: Micros,
}

impl Engine {
    /// Reads a training set in memory, as an Arrow stream.
    pub fn training_set(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &[u8],
    ) -> Result<Vec<u8>, Problem> {
        let mut spine = Some(spine.to_vec());
        let mut pieces = || Ok(spine.take());
        let mut out = Vec::new();
        let stop = Stop::default();
        self.stream_training_set(request, format, &mut pieces, &stop, &mut out)?;
        Ok(out)
    }

    /// Reads a training set of a spine that comes piece by piece; an Arrow stream is written to `out` as it is made. Unless
    /// it is told to stop before it is whole.
    pub fn stream_training_set(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &mut Pieces<'_>,
        stop: &Stop,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Problem> {
        let _running = self.making.begin()?;
        let work = self.work(stop);
        let spine = self.spooled(&work, spine)?;
        let made = self.make(self.asked(request)?, &spine, format, &work)?;
        let manifest = made.manifest(self.facts.first_sequence(), OutputFormat::ArrowStream);
        let manifest = HashMap::from([(MANIFEST_METADATA.to_owned(), manifest.to_text()?)]);
        let schema = made.schema().with_metadata(manifest);
        self.write_rows(&made, OutputFormat::ArrowStream, &Arc::new(schema), out)?;
        Ok(())
    }

    /// A spine that comes piece by piece, to be read at any place.
    pub(crate) fn spooled(
        &self,
        work: &Work<'_>,
        spine: &mut Pieces<'_>,
    ) -> Result<Arc<dyn ReadFile>, Problem> {
        let bytes_max = self.making.settings.spine_bytes_max;
        let too_many = |bytes: u64| (bytes > bytes_max).then(|| spine_too_large(bytes_max));
        spool(&work.spill, spine, SPOOLED_BYTES_HELD, too_many)
    }

    /// Writes a training set of a spine in a file to a file, and its manifest beside it. `again` is the manifest of one that
    /// is to be made again: what would not be the same is refused. `progress` hears how far it is.
    pub fn write_training_set(
        &self,
        request: &TrainingSetRequest,
        spine: &Path,
        out: &Path,
        again: Option<&Manifest>,
        progress: &ProgressHook,
    ) -> Result<Manifest, Problem> {
        let table = table_format(out)?;
        refuse_own_spine(&self.env, spine, out)?;
        let extension = spine.extension().and_then(|e| e.to_str());
        let format = spine_format(extension.unwrap_or_default())?;
        let spine = self.env.files.open_read(spine).map_err(unreadable)?;
        let _running = self.making.begin()?;
        let stop = Stop::default();
        let work = Work {
            progress: progress.clone(),
            ..self.work(&stop)
        };
        let asked = self.asked(request)?;
        let made = self.make(asked, &Arc::from(spine), format, &work)?;
        let manifest = made.manifest(self.facts.first_sequence(), table);
        if let Some(again) = again {
            refuse_changes(&manifest, again)?;
        }
        write_table(&self.env, out, |out| {
            let nulls = self.write_rows(&made, table, &Arc::new(made.schema()), out)?;
            Ok(move |sha256| {
                let manifest = manifest.finish(nulls, sha256);
                if let Some(again) = again {
                    refuse_other_bytes(&manifest, again)?;
                }
                Ok(manifest)
            })
        })
    }

    pub(crate) fn work<'a>(&self, stop: &'a Stop) -> Work<'a> {
        let bytes_max = self.making.settings.spill_bytes_max;
        let limit = SpillLimit::new(bytes_max, "training_sets.spill_bytes_max");
        Work {
            spill: Spill::new(&self.env, &self.data.spill(), &limit),
            limit,
            stop,
            progress: ProgressHook::default(),
        }
    }

    /// What a training set is made by.
    fn asked<'a>(&self, request: &'a TrainingSetRequest) -> Result<Asked<'a>, Problem> {
        let (plan, registry) = self.reader.plan_and_registry(&request.names)?;
        let labels = labels::named(&plan.catalog, &request.labels)?;
        let added = plan.names.iter().chain(labels.iter().map(|l| &l.name));
        Ok(Asked {
            request,
            registry,
            time: SpineTime::Column(request.time.clone()),
            inclusive: Some(request.inclusive),
            added: added.cloned().collect(),
            labels,
            plan,
        })
    }

    /// Everything that can be checked before the first read.
    pub(crate) fn make<'a>(
        &self,
        asked: Asked<'a>,
        file: &Arc<dyn ReadFile>,
        format: BodyFormat,
        work: &'a Work<'a>,
    ) -> Result<Made<'a>, Problem> {
        let Asked {
            request,
            plan,
            registry,
            labels,
            ..
        } = asked;
        let shape = SpineShape {
            entities: key_shapes(&plan, &labels),
            context: plan.set.as_ref().map_or(Vec::new(), |s| s.context.clone()),
            time: asked.time,
            added: asked.added,
        };
        let taking = Taking {
            engine: self,
            known_at: request.known_at,
            facts_until: request.facts_until,
            inclusive: asked.inclusive,
            shape: &shape,
            spill: &work.spill,
            bytes_max: self.making.settings.memory_bytes_max / 4,
            stop: work.stop,
            progress: &work.progress,
        };
        let spine = taking.take(file, format)?;
        let made = Made {
            request,
            work,
            labels,
            labels_as_of: request.labels_as_of.unwrap_or(self.env.clock.now()),
            registry,
            plan,
            spine,
        };
        self.refuse_expired(&made)?;
        Ok(made)
    }

    /// Refuses rows that need facts which are no longer kept.
    fn refuse_expired(&self, made: &Made<'_>) -> Result<(), Problem> {
        let (sweep, earliest) = (self.sweep(made), made.spine.earliest);
        for reads in &made.plan.views {
            sweep.refuse_expired(&reads.plan, earliest)?;
        }
        for label in &made.labels {
            if let Some(cursor) = label.cursor(earliest, made.labels_as_of) {
                sweep.refuse_expired(&label.plan(), cursor.as_of)?;
            }
        }
        Ok(())
    }

    /// A sweep for one of the views and labels of a training set. Beside it the spine is held, a quarter of all, and what the
    /// others found, a quarter of what each of them may take.
    fn sweep<'a>(&'a self, made: &'a Made<'_>) -> Sweep<'a> {
        let sweeps = made.plan.views.len() + made.labels.len();
        let bytes = self.making.settings.memory_bytes_max / 4 * 3;
        Sweep {
            env: &self.env,
            facts: self.facts.as_ref(),
            catalog: &made.plan.catalog,
            options: SweepOptions {
                memory_bytes_max: bytes / (sweeps + 3) * 4,
                spill_folder: self.data.spill(),
                spill_limit: made.work.limit.clone(),
            },
        }
    }

    /// What each view says of every row, in the rows' order.
    pub(crate) fn swept(&self, made: &Made<'_>) -> Result<Vec<SweptRows>, Problem> {
        let sweep = self.sweep(made);
        let mut views = Vec::new();
        for (number, reads) in made.plan.views.iter().enumerate() {
            let entity = &reads.plan.view().entity.name;
            let mut entities = made.plan.shape.entities.iter();
            let place = entities.position(|e| e.name == *entity).unwrap_or_default();
            let moments = made.each_moment(|chunk| {
                let keys = made.spine.columns.keys(place, &chunk.rows, chunk.first)?;
                let both = keys.into_iter().zip(&chunk.cursors);
                let moment = |(key, cursor): (_, &Cursor)| Moment {
                    key,
                    cursor: *cursor,
                };
                Ok(both.map(moment).collect())
            });
            let (plan, progress) = (&reads.plan, made.sweep_progress(number));
            let swept = sweep.features_with_progress(plan, moments, made.work.stop, &progress)?;
            views.push(swept);
        }
        Ok(views)
    }

    /// Writes all rows; how many values of each feature are null.
    fn write_rows(
        &self,
        made: &Made<'_>,
        format: OutputFormat,
        schema: &SchemaRef,
        out: &mut (dyn Write + Send),
    ) -> Result<Vec<usize>, Problem> {
        let mut nulls = vec![0; made.plan.names.len() + made.labels.len()];
        let mut views = self.swept(made)?;
        let mut labels = self.swept_labels(made)?;
        let mut table = TableWriter::new(format, schema, Box::new(out))?;
        let rows_written = |rows: usize| {
            let (progress, all) = (&made.work.progress, made.spine.count as u64);
            progress.tell(Step::WriteTable, rows as u64, Some(all));
        };
        rows_written(0);
        for chunk in made.spine.chunks() {
            made.work.stop.check()?;
            let chunk = chunk?;
            let mut columns: Vec<ArrayRef> = chunk.rows.columns().to_vec();
            columns.extend(made.features_of(&chunk, &mut views)?.0);
            for label in &mut labels {
                columns.push(made.label_column(label, &chunk)?);
            }
            let added = &columns[chunk.rows.num_columns()..];
            for (nulls, column) in nulls.iter_mut().zip(added) {
                *nulls += column.null_count();
            }
            let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|e| {
                Problem::internal("training-set", "rows can't be put together").detail(e)
            })?;
            table.write(&rows)?;
            rows_written(chunk.first + rows.num_rows());
        }
        table.finish()?;
        Ok(nulls)
    }
}

impl Made<'_> {
    /// The next rows' columns of features, with what the set works out, and of context.
    pub(crate) fn features_of(
        &self,
        chunk: &Chunk,
        views: &mut [SweptRows],
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), Problem> {
        let rows = chunk.rows.num_rows();
        let mut found = vec![None; self.plan.features];
        for (reads, view) in self.plan.views.iter().zip(views) {
            reads.place_columns(view.take(rows)?, &mut found);
        }
        let context = self.spine.columns.context(&chunk.rows, chunk.first)?;
        let features = self.plan.finish_columns(found, context.clone(), rows)?;
        Ok((features, context))
    }

    /// Hears of one of the sweeps: those of the views, then those of the labels.
    fn sweep_progress(&self, number: usize) -> SweepProgress {
        let sweeps = self.plan.views.len() + self.labels.len();
        let progress = &self.work.progress;
        progress.of_sweep(number + 1, sweeps, self.spine.count)
    }

    /// The spine's own columns, then the features, then the labels.
    fn schema(&self) -> Schema {
        let labels = self.labels.iter().map(|l| (&l.name, l.data_type()));
        table_schema(&self.spine.schema, self.plan.typed_names().chain(labels))
    }

    /// The moments that `of` makes of every chunk.
    fn each_moment(
        &self,
        of: impl Fn(&Chunk) -> Result<Vec<Moment>, Problem>,
    ) -> impl Iterator<Item = Result<Moment, Problem>> {
        let moments = move |chunk: Result<Chunk, Problem>| {
            self.work.stop.check()?;
            of(&chunk?)
        };
        self.spine.chunks().flat_map(move |chunk| {
            let (moments, problem) = match moments(chunk) {
                Ok(moments) => (moments, None),
                Err(problem) => (Vec::new(), Some(problem)),
            };
            moments.into_iter().map(Ok).chain(problem.map(Err))
        })
    }
}

fn spine_too_large(bytes_max: u64) -> Problem {
    Problem::user("body-too-large", "the spine is too large")
        .detail(format!("more than {bytes_max} bytes"))
        .hint("send it in parts, raise `training_sets.spine_bytes_max`, or make the training set beside the data")
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

/// The spine's own columns, then those that are added.
pub(crate) fn table_schema<'a>(
    spine: &SchemaRef,
    added: impl Iterator<Item = (&'a Arc<str>, &'a DataType)>,
) -> Schema {
    let mut fields: Vec<Arc<ArrowField>> = spine.fields().iter().cloned().collect();
    for (name, data_type) in added {
        fields.push(Arc::new(ArrowField::new(
            name.as_ref(),
            data_type.to_arrow(),
            true,
        )));
    }
    Schema::new(fields)
}
