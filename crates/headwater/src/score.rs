//! Scores: rows of a file, each with what a model says of it.
//!
//! Rows of entities get the features of the model's set by the sweep that makes training sets, each at its own moment or
//! all at one; rows that bring the model's inputs are read and scored as they come. Neither rows nor table are held as
//! a whole. Encoding, binding and predictor are those of `serve`, so that a row's bits are those of a request.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use headwater_api::backend::{Names, ScoreRequest, TrainingSetRequest};
use headwater_batch::{
    InputColumns, InputShape, OutputFormat, Pieces, ScoreManifest, ScoredFeatures, ScoredRows,
    SpineReader, SpineTime, Stop, TableWriter, missing_values, sha256_of, spine_format,
};
use headwater_env::ReadFile;
use headwater_facts::FactLog;
use headwater_features::Registry;
use headwater_schema::decode::BodyFormat;
use headwater_schema::{DataType, Field, Problem};
use headwater_serve::BulkScorer;

use crate::Engine;
use crate::parts::{spine_rows, unreadable};
use crate::reader::Plan;
use crate::table_file::{refuse_own_spine, table_format, write_table};
use crate::training_set::{
    Asked, MANIFEST_METADATA, Made, Work, feature_definitions, table_schema,
};

/// The column of the rows' moments unless another is named.
const TIME: &str = "as_of";
/// How often definitions are looked at again where they changed meanwhile.
const LOOKS_MAX: usize = 4;

/// Where a table goes.
struct Out<'a> {
    format: OutputFormat,
    /// Whether the manifest, as far as it is known, goes ahead of the rows.
    ahead: bool,
    to: &'a mut (dyn Write + Send),
}

/// What rows are scored by.
struct By<'a> {
    request: &'a ScoreRequest,
    scorer: BulkScorer,
    plan: Arc<Plan>,
    registry: Arc<Registry>,
}

/// A table that was written, and what is told of it.
struct Scored {
    manifest: ScoreManifest,
    rows: usize,
    missing: Vec<usize>,
}

impl Engine {
    /// Scores the rows of a file into another, and writes the manifest beside it. The file takes its place once it is whole.
    pub fn write_scores(
        &self,
        request: &ScoreRequest,
        rows: &Path,
        out: &Path,
    ) -> Result<ScoreManifest, Problem> {
        let table = table_format(out)?;
        refuse_own_spine(&self.env, rows, out)?;
        let extension = rows.extension().and_then(|e| e.to_str());
        let format = spine_format(extension.unwrap_or_default())?;
        let rows = self.env.files.open_read(rows).map_err(unreadable)?;
        let _running = self.making.begin()?;
        let stop = Stop::default();
        let work = self.work(&stop);
        write_table(&self.env, out, |to| {
            let out = Out {
                format: table,
                ahead: false,
                to,
            };
            let scored = self.score(request, &Arc::from(rows), format, out, &work)?;
            Ok(move |sha256| Ok(scored.manifest.finish(scored.rows, scored.missing, sha256)))
        })
    }

    /// Scores rows that come piece by piece; an Arrow stream is written to `out` as it is made, unless it is told to stop.
    pub fn stream_scores(
        &self,
        request: &ScoreRequest,
        format: BodyFormat,
        rows: &mut Pieces<'_>,
        stop: &Stop,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Problem> {
        let _running = self.making.begin()?;
        let work = self.work(stop);
        let rows = self.spooled(&work, rows)?;
        let out = Out {
            format: OutputFormat::ArrowStream,
            ahead: true,
            to: out,
        };
        self.score(request, &rows, format, out, &work).map(drop)
    }

    fn score(
        &self,
        request: &ScoreRequest,
        rows: &Arc<dyn ReadFile>,
        format: BodyFormat,
        out: Out<'_>,
        work: &Work<'_>,
    ) -> Result<Scored, Problem> {
        request.check()?;
        let by = self.scored_by(request)?;
        match request.vectors {
            true => by.score_inputs(rows, format, out, work),
            false => self.score_features(&by, rows, format, out, work),
        }
    }

    /// The version and the plan of its set, under the same definitions.
    fn scored_by<'a>(&self, request: &'a ScoreRequest) -> Result<By<'a>, Problem> {
        for _ in 0..LOOKS_MAX {
            let catalog = self.catalog();
            let set = &catalog.model(&request.model)?.set.name;
            let (plan, registry) = self
                .reader
                .plan_and_registry(&Names::Set(set.to_string()))?;
            if plan.catalog.model(&request.model)?.set.name == *set {
                let asked = request.version.as_deref();
                return Ok(By {
                    request,
                    scorer: self.serving.bulk(&request.model, asked, &plan.catalog)?,
                    plan,
                    registry,
                });
            }
        }
        Err(Problem::external(
            "definitions-changed",
            "definitions change faster than they are read",
        )
        .retryable())
    }

    /// Scores rows of entities.
    fn score_features(
        &self,
        by: &By<'_>,
        rows: &Arc<dyn ReadFile>,
        format: BodyFormat,
        out: Out<'_>,
        work: &Work<'_>,
    ) -> Result<Scored, Problem> {
        let request = by.spine_request();
        let asked = Asked {
            request: &request,
            plan: by.plan.clone(),
            registry: by.registry.clone(),
            time: by.time(self.env.clock.now()),
            inclusive: by.request.inclusive,
            added: by.added().map(|(name, _)| name.clone()).collect(),
            labels: Vec::new(),
        };
        let made = self.make(asked, rows, format, work)?;
        let spine = &made.spine;
        let mut manifest = by.manifest(out.format, &spine.schema, &spine.sha256);
        manifest.rows.count = spine.count;
        let first = self.facts.first_sequence();
        manifest.features = Some(by.features(&made, &request, (first, spine.end)));
        let mut views = self.swept(&made)?;
        let mut table = Table::begin(out, &spine.schema, by, &manifest)?;
        for chunk in spine.chunks() {
            work.stop.check()?;
            let chunk = chunk?;
            let (features, context) = made.features_of(&chunk, &mut views)?;
            let inputs = by.scorer.pick(&features, &context)?;
            let count = chunk.rows.num_rows();
            let outputs = by.scorer.score(&inputs, count, chunk.first)?;
            let features = features.into_iter().filter(|_| by.request.with_features);
            table.write(&chunk.rows, features.chain(outputs))?;
        }
        table.finish(manifest)
    }
}

impl By<'_> {
    /// The columns that are added, with their types.
    fn added(&self) -> impl Iterator<Item = (&Arc<str>, &DataType)> {
        let features = self.plan.typed_names();
        let features = features.filter(|_| self.request.with_features);
        let outputs = self.scorer.outputs().iter();
        features.chain(outputs.map(|name| (name, &DataType::Float64)))
    }

    /// How rows are read: as those of a training set without labels.
    fn spine_request(&self) -> TrainingSetRequest {
        TrainingSetRequest {
            names: Names::Set(self.scorer.set().name.to_string()),
            inclusive: false,
            known_at: self.request.known_at,
            facts_until: None,
            time: self.request.time.clone().unwrap_or(TIME.to_owned()),
            labels: Vec::new(),
            labels_as_of: None,
        }
    }

    fn time(&self, now: headwater_schema::Micros) -> SpineTime {
        match (self.request.as_of, &self.request.time) {
            (Some(at), _) => SpineTime::One {
                at,
                unless: TIME.to_owned(),
            },
            (None, Some(column)) => SpineTime::Column(column.clone()),
            (None, None) => SpineTime::ColumnOr(TIME.to_owned(), now),
        }
    }

    /// What is known before the first row; [`ScoreManifest::finish`] adds the rest.
    fn manifest(&self, output: OutputFormat, schema: &SchemaRef, sha256: &str) -> ScoreManifest {
        let record = self.scorer.record();
        let outputs = self.scorer.outputs().iter();
        ScoreManifest {
            format: ScoreManifest::FORMAT,
            model: self.request.model.clone(),
            version: record.version.clone(),
            file_sha256: record.sha256.clone(),
            model_format: record.model_format.clone(),
            outputs: outputs.map(|name| name.to_string()).collect(),
            warnings: self.scorer.warnings().to_vec(),
            features: None,
            rows: ScoredRows {
                count: 0,
                columns: schema.fields().iter().map(|f| f.name().clone()).collect(),
                sha256: sha256.to_owned(),
            },
            nulls: BTreeMap::new(),
            output: output.as_str().to_owned(),
            sha256: String::new(),
        }
    }

    fn features(
        &self,
        made: &Made<'_>,
        request: &TrainingSetRequest,
        facts: (u64, u64),
    ) -> ScoredFeatures {
        let spine = &made.spine;
        let columns = self.plan.names.iter();
        let columns = columns.filter(|_| self.request.with_features);
        let has_time = spine.schema.index_of(&request.time).is_ok();
        ScoredFeatures {
            feature_set: self.scorer.set().name.to_string(),
            columns: columns.map(|name| name.to_string()).collect(),
            definitions: feature_definitions(&self.registry, &self.plan, &request.names),
            meanings: self.scorer.meanings(),
            time: has_time.then(|| request.time.clone()),
            as_of: spine.columns.one_moment(),
            inclusive: spine.inclusive,
            known_at: spine.rule,
            facts,
        }
    }

    /// Scores rows that have the model's inputs, as they come.
    fn score_inputs(
        &self,
        rows: &Arc<dyn ReadFile>,
        format: BodyFormat,
        out: Out<'_>,
        work: &Work<'_>,
    ) -> Result<Scored, Problem> {
        let inputs = self.scorer.inputs().into_iter().map(|input| InputShape {
            name: input.name,
            is_text: input.is_text,
        });
        let inputs: Vec<InputShape> = inputs.collect();
        // In CSV nothing tells the category `07` from a number.
        let texts = inputs.iter().filter(|input| input.is_text);
        let texts = texts.filter(|_| format == BodyFormat::Csv);
        let texts = texts.map(|input| Field::new(input.name.as_str(), DataType::String));
        let numbers = inputs.iter().filter(|input| !input.is_text);
        let numbers = numbers.map(|input| input.name.clone()).collect();
        let reader = SpineReader::new(texts.collect()).with_numbers(numbers);
        let sha256 = sha256_of(rows.as_ref()).map_err(unreadable)?;
        let mut out = Some(out);
        let mut begun: Option<(InputColumns, Table<'_>, ScoreManifest)> = None;
        let mut sink = |rows: RecordBatch| {
            work.stop.check()?;
            if let Some(out) = out.take() {
                let schema = rows.schema();
                let added: Vec<Arc<str>> = self.scorer.outputs().to_vec();
                let columns = InputColumns::find(&schema, &inputs, &added)?;
                let manifest = self.manifest(out.format, &schema, &sha256);
                let table = Table::begin(out, &schema, self, &manifest)?;
                begun = Some((columns, table, manifest));
            }
            let none = || Problem::internal("score", "a table wasn't begun");
            let (columns, table, _) = begun.as_mut().ok_or_else(none)?;
            let inputs = columns.arrays(&rows);
            let outputs = self.scorer.score(&inputs, rows.num_rows(), table.rows)?;
            table.write(&rows, outputs.into_iter())
        };
        spine_rows(rows, format, reader, work.stop, &mut sink)?;
        let none = || Problem::internal("score", "a file has no rows");
        let (_, table, manifest) = begun.ok_or_else(none)?;
        table.finish(manifest)
    }
}

/// A table while it is written.
struct Table<'a> {
    writer: TableWriter<'a>,
    schema: SchemaRef,
    rows: usize,
    missing: Vec<usize>,
}

impl<'a> Table<'a> {
    fn begin(
        out: Out<'a>,
        rows: &SchemaRef,
        by: &By<'_>,
        manifest: &ScoreManifest,
    ) -> Result<Self, Problem> {
        let mut schema = table_schema(rows, by.added());
        if out.ahead {
            let text = manifest.to_text()?;
            schema = schema.with_metadata(HashMap::from([(MANIFEST_METADATA.to_owned(), text)]));
        }
        let schema = Arc::new(schema);
        Ok(Self {
            writer: TableWriter::new(out.format, &schema, Box::new(out.to))?,
            rows: 0,
            missing: vec![0; manifest.added().count()],
            schema,
        })
    }

    /// Writes rows with the columns that are added to them.
    fn write(
        &mut self,
        rows: &RecordBatch,
        added: impl Iterator<Item = ArrayRef>,
    ) -> Result<(), Problem> {
        let own = rows.num_columns();
        let mut columns = rows.columns().to_vec();
        columns.extend(added);
        for (missing, column) in self.missing.iter_mut().zip(&columns[own..]) {
            *missing += missing_values(column);
        }
        self.rows += rows.num_rows();
        let rows = RecordBatch::try_new(self.schema.clone(), columns);
        let rows =
            rows.map_err(|e| Problem::internal("score", "rows can't be put together").detail(e))?;
        self.writer.write(&rows)
    }

    fn finish(self, manifest: ScoreManifest) -> Result<Scored, Problem> {
        self.writer.finish()?;
        Ok(Scored {
            manifest,
            rows: self.rows,
            missing: self.missing,
        })
    }
}
