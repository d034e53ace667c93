//! What the edge serves, in plain types: the engine implements it.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

pub use crate::bundle::BundleRequest;
use headwater_aggregate::Status;
use headwater_batch::sql::Answer;
use headwater_batch::{Pieces, Stop};
use headwater_env::Durations;
pub use headwater_features::{ContextRow, EntityRequest, KeyValue};
use headwater_features::{DefinitionKind, Direction};
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::Duration;
use headwater_schema::{Contract, DataType, Field, Micros, Problem, Sequence, Value};
pub use headwater_serve::{
    AnsweredBy, Candidates, IndexedVersion, InputRows, ModelStats, NewVersion, Pending,
    PredictDone, PredictReply, PredictRequest, Signature, SignatureInput, VersionCounts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::score::ScoreRequest;
pub use crate::training_sets::{TrainingKnownAt, TrainingSetRequest};

/// How facts are to be taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngestOptions {
    /// One bad row refuses them all.
    pub all_or_nothing: bool,
    /// A fact whose id is known replaces the one that is known.
    pub revise: bool,
}

/// What became of a retraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetractReply {
    pub retracted: usize,
    /// Ids that no live fact has.
    pub unknown: Vec<String>,
    pub sequence: Sequence,
}

/// How much of the log a read may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownAt {
    /// What had been appended by this sequence.
    Sequence(Sequence),
    /// What had arrived by this instant.
    Instant(Micros),
}

/// What became of facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestReply {
    pub accepted: usize,
    pub duplicates: usize,
    pub rejected: Vec<RejectedFact>,
    pub sequence: Sequence,
}

/// A row that wasn't taken, as its sender counts rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedFact {
    pub row: usize,
    pub field: Option<String>,
    pub reason: String,
}

/// Which facts to list.
#[derive(Debug, Clone)]
pub struct FactsQuery {
    pub contract: String,
    /// Facts of one entity only.
    pub entity: Option<EntityRequest>,
    pub from: Option<Micros>,
    /// The first instant that is left out.
    pub to: Option<Micros>,
    /// Facts as they were known then; as they are by default.
    pub known_at: Option<KnownAt>,
    /// The newest of them, this many.
    pub limit: usize,
}

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub struct FactRow {
    pub fact_id: String,
    pub event_time: Micros,
    pub ingest_time: Micros,
    pub sequence: Sequence,
    pub values: Vec<(Arc<str>, Value)>,
}

/// A row that broke its contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Its number among the rejected rows of its contract.
    pub id: u64,
    pub ingest_time: Micros,
    pub row: usize,
    pub field: Option<String>,
    pub rule: String,
    pub reason: String,
    pub raw: String,
    /// When it became a fact; none while it waits.
    pub resolved: Option<Micros>,
}

/// Which rows of the quarantine to try again.
#[derive(Debug, Clone)]
pub enum Mending {
    /// All that wait, as they came.
    All,
    /// These, as they came.
    Rows(Vec<u64>),
    /// These, mended: their number, and a row of JSON.
    Repaired(Vec<(u64, String)>),
}

/// What became of rows that were tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MendReply {
    /// Rows that are new facts.
    pub accepted: usize,
    /// Rows whose facts were known already.
    pub duplicates: usize,
    /// Rows that still wait.
    pub waiting: usize,
    /// Those of them, as far as they are told, and why.
    pub rejected: Vec<StillRejected>,
    pub sequence: Sequence,
}

/// A row that still waits in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillRejected {
    pub id: u64,
    pub field: Option<String>,
    pub reason: String,
}

/// The features to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Names {
    /// Full names.
    List(Vec<String>),
    /// A feature set.
    Set(String),
}

/// A query in SQL, and the cursor that it is answered at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryRequest {
    pub sql: String,
    /// The newest event time that it sees; all by default.
    pub as_of: Option<Micros>,
    /// Everything that is visible by default.
    pub known_at: Option<KnownAt>,
    /// Rows after which the answer ends.
    pub limit: Option<usize>,
}

/// A read of features at one cursor.
#[derive(Debug, Clone)]
pub struct FeaturesRequest {
    pub names: Names,
    pub entities: Vec<EntityRequest>,
    pub as_of: Option<Micros>,
    pub known_at: Option<KnownAt>,
    /// The request's own fields, one object per row of entities, where the set asks for any.
    pub context: Vec<ContextRow>,
    /// Whether facts at `as_of` itself count.
    pub inclusive: bool,
    /// Whether keys that no entity has are passed over instead of refused: the servers of Feast and Chronon do,
    /// and their clients send more than is asked for.
    pub lenient: bool,
}

/// The features read.
#[derive(Debug, Clone)]
pub struct FeaturesReply {
    pub names: Arc<[Arc<str>]>,
    /// The largest relative error of each feature that may be estimated, by full name.
    pub error_bounds: Arc<BTreeMap<Arc<str>, f64>>,
    pub shape: Arc<ReadShape>,
    pub rows: Vec<FeatureRow>,
    pub as_of: Micros,
    pub sequence: Sequence,
    /// Sources of the views read that should be fresher; of reads of now alone.
    pub stale_sources: Vec<StaleSource>,
}

/// A source whose newest fact is older than its contract allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleSource {
    pub contract: Arc<str>,
    /// The newest event time, capped at its arrival; none before the first fact.
    pub newest: Option<Micros>,
    pub expected_within: Duration,
}

/// What a reply's columns are, whatever was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadShape {
    /// The type of each name.
    pub types: Vec<DataType>,
    /// The entities that the names are of, each once.
    pub entities: Vec<EntityShape>,
    /// The fields that a request brings itself, where the set declares any.
    pub context: Vec<Field>,
}

/// An entity's name and key columns.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityShape {
    pub name: Arc<str>,
    pub keys: Vec<Field>,
}

/// Where facts go that are written under a view's name.
#[derive(Debug, Clone)]
pub struct WriteTarget {
    /// The view's only source.
    pub contract: Arc<Contract>,
    /// Other names of the contract's columns: the entity's keys and the view's latest values.
    pub aliases: BTreeMap<String, Arc<str>>,
}

/// One row of features, in the order of the names.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRow {
    pub values: Vec<Value>,
    pub statuses: Vec<Status>,
    pub event_times: Vec<Option<Micros>>,
}

/// What to tell of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryQuery {
    /// Everything that is defined.
    All,
    /// All definitions of a kind.
    Kind(DefinitionKind),
    /// One definition with its history; as one of its versions said, where that is named.
    One {
        kind: DefinitionKind,
        name: String,
        version: Option<u64>,
    },
    /// What is called or described so.
    Search { text: String, limit: usize },
    /// What a thing feeds, or what feeds it.
    Lineage { of: String, direction: Direction },
}

/// A file of definitions, as a project has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefinitionFile {
    /// Its path from the project's folder; problems name it.
    pub file: String,
    /// YAML, one document or several.
    pub text: String,
}

/// Definitions to plan or to put in force: all of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefinitionsRequest {
    pub files: Vec<DefinitionFile>,
    /// Refuse unless the registry is at this version: nobody has applied anything since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

/// Views to make again from the facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillRequest {
    pub views: Vec<String>,
}

/// A measured number, for `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// The metric's name without the prefix `headwater_`.
    pub name: &'static str,
    pub help: &'static str,
    /// Label names and values; few of them.
    pub labels: Vec<(&'static str, String)>,
    pub amount: Amount,
}

/// How much was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Amount {
    /// It rises and falls.
    Gauge(f64),
    /// It only grows.
    Counter(u64),
    /// Durations, by how long they were.
    Durations(Box<Durations>),
}

impl Measure {
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self::new(name, help, Amount::Gauge(value))
    }

    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Amount::Counter(value))
    }

    pub fn durations(name: &'static str, help: &'static str, durations: Durations) -> Self {
        Self::new(name, help, Amount::Durations(Box::new(durations)))
    }

    fn new(name: &'static str, help: &'static str, amount: Amount) -> Self {
        Self {
            name,
            help,
            labels: Vec::new(),
            amount,
        }
    }

    /// The same, of one of several.
    pub fn of(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// Hears what became of facts.
pub type IngestDone = Box<dyn FnOnce(Result<IngestReply, Problem>) + Send>;

/// Hears what became of a retraction.
pub type RetractDone = Box<dyn FnOnce(Result<RetractReply, Problem>) + Send>;

/// Everything the edge can be asked.
pub trait Backend: Send + Sync + 'static {
    /// Takes facts; `done` hears when they are durable and visible.
    fn submit(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        options: IngestOptions,
        done: IngestDone,
    );

    /// Takes back the newest live fact with each id; `done` hears when that is durable and visible.
    fn retract(&self, contract: &str, fact_ids: Vec<String>, done: RetractDone);

    /// Reads features.
    fn features(&self, request: &FeaturesRequest) -> Result<FeaturesReply, Problem>;

    /// A training set of a spine that comes piece by piece: an Arrow stream, written as it is made; given up once it is
    /// told to stop.
    fn training_set(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &mut Pieces<'_>,
        stop: &Stop,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Problem>;

    /// Scores rows that come piece by piece: an Arrow stream, written as it is made; given up once it is told to stop.
    fn score(
        &self,
        request: &ScoreRequest,
        format: BodyFormat,
        rows: &mut Pieces<'_>,
        stop: &Stop,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Problem>;

    /// Begins a query; its rows come on threads of its own. Waits until its columns are known.
    fn query(&self, request: &QueryRequest) -> Result<Answer, Problem>;

    /// Lists facts, newest last.
    fn facts(&self, query: &FactsQuery) -> Result<Vec<FactRow>, Problem>;

    /// Lists rows that broke their contract, newest first; with those that are facts by now where
    /// `resolved` says so.
    fn quarantine(
        &self,
        contract: &str,
        resolved: bool,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, Problem>;

    /// Tries rows of the quarantine again under the present contract: those that keep it become facts,
    /// the others stay with the new reason.
    fn mend(&self, contract: &str, mending: Mending, revise: bool) -> Result<MendReply, Problem>;

    /// A contract by its name.
    fn contract(&self, name: &str) -> Result<Arc<Contract>, Problem>;

    /// What a read of these features has as columns, and asks for.
    fn shape(&self, names: &Names) -> Result<Arc<ReadShape>, Problem>;

    /// The full names of a view's features.
    fn view_features(&self, view: &str) -> Result<Vec<String>, Problem>;

    /// Where facts go that are written under a view's name.
    fn write_target(&self, view: &str) -> Result<WriteTarget, Problem>;

    /// What is defined, for people and tools.
    fn registry(&self, query: &RegistryQuery) -> Result<serde_json::Value, Problem>;

    /// The name of the project that is served.
    fn project(&self) -> &str;

    /// What putting definitions in force would change.
    fn plan(&self, request: &DefinitionsRequest) -> Result<serde_json::Value, Vec<Problem>>;

    /// Puts definitions in force; what that changed.
    fn apply(&self, request: &DefinitionsRequest) -> Result<serde_json::Value, Vec<Problem>>;

    /// What the archive holds.
    fn archive(&self) -> Result<serde_json::Value, Problem>;

    /// Takes facts to the archive for a while; what that did, what the archive holds, and whether all is done.
    fn run_archive(&self) -> Result<serde_json::Value, Problem>;

    /// Asks a model; `done` hears the answer once. Whoever waits gives up at the deadline.
    fn predict(
        &self,
        request: PredictRequest,
        done: PredictDone,
    ) -> Result<Arc<dyn Pending>, Problem>;

    /// A model's predictions in the order in which they were written, after a sequence.
    fn predictions(
        &self,
        model: &str,
        after: Sequence,
        facts_max: usize,
    ) -> Result<crate::PredictionPage, Problem>;

    /// The last sequence that a read sees, as it grows.
    fn applied(&self) -> tokio::sync::watch::Receiver<Sequence>;

    /// The versions and aliases of one model, or of all.
    fn models(&self, model: Option<&str>) -> Result<serde_json::Value, Problem>;

    /// What a version of a model takes and answers, if it can be asked now; `live` where none is named.
    fn signature(&self, model: &str, version: Option<&str>) -> Result<Signature, Problem>;

    /// Every model, with each version that is loaded or should be.
    fn model_index(&self) -> Vec<IndexedVersion>;

    /// Loads a model's versions where they aren't; refuses unless one is live then.
    fn load_model(&self, model: &str) -> Result<(), Problem>;

    /// Lets a model's versions go until they are loaded again.
    fn unload_model(&self, model: &str) -> Result<(), Problem>;

    /// A version of a model and what is known of some entities, as a file.
    fn bundle(&self, request: &BundleRequest) -> Result<Vec<u8>, Problem>;

    /// What is counted of each model.
    fn model_stats(&self) -> Vec<ModelStats>;

    /// Adds a version of a model; the model then.
    fn add_model(
        &self,
        model: &str,
        file: Vec<u8>,
        version: &NewVersion,
    ) -> Result<serde_json::Value, Problem>;

    /// Lets an alias of a model point at a version; the model then.
    fn promote(
        &self,
        model: &str,
        alias: &str,
        version: &str,
    ) -> Result<serde_json::Value, Problem>;

    /// Lets an alias of a model point where it pointed before; the model then.
    fn rollback(&self, model: &str, alias: &str) -> Result<serde_json::Value, Problem>;

    /// Lets go of a version that no alias points at; the model then.
    fn remove_version(&self, model: &str, version: &str) -> Result<serde_json::Value, Problem>;

    /// Makes views again from the facts, by their names; which are being filled then.
    fn backfill(&self, views: &[String]) -> Result<serde_json::Value, Problem>;

    /// What there is to measure.
    fn measures(&self) -> Vec<Measure>;
}
