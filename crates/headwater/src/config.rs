//! The project's settings: `headwater.yaml`, typed, with every limit named and defaulted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use headwater_api::{KeyRecord, Limits};
use headwater_batch::sql::QueryOptions;
use headwater_facts::{FactLogOptions, SyncPolicy};
use headwater_schema::decode::DecodeLimits;
use headwater_serve::ServingSettings;
use headwater_stream::{PipelineOptions, ProcessorOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ArchiveSettings, TrainingSetSettings, WebhookSettings};

/// The document `headwater.yaml`. Only `name` is required.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always `headwater/v1`.
    #[serde(rename = "apiVersion", default = "api_version")]
    pub api_version: String,
    /// Always `Project`.
    #[serde(default = "kind")]
    pub kind: String,
    /// The project's name.
    pub name: String,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub spec: Settings,
}

fn api_version() -> String {
    "headwater/v1".into()
}

fn kind() -> String {
    "Project".into()
}

/// What can be set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the data lies, from the project's folder.
    pub data_dir: PathBuf,
    /// The address of the HTTP server.
    pub listen: SocketAddr,
    /// The address of the gRPC server; by default HTTP's, on the next port.
    pub grpc_listen: Option<SocketAddr>,
    /// How facts are taken in.
    pub ingest: IngestSettings,
    /// How feature state is kept.
    pub state: StateSettings,
    /// Where sealed files of the fact log go; without it they stay.
    pub archive: Option<ArchiveSettings>,
    /// How training sets are made.
    pub training_sets: TrainingSetSettings,
    /// What queries in SQL may take.
    pub query: QueryOptions,
    /// How models are served.
    pub serving: ServingSettings,
    /// How predictions are posted to servers that their models name.
    pub webhooks: WebhookSettings,
    /// Limits of requests.
    pub limits: Limits,
    /// Who may call.
    pub auth: AuthSettings,
    /// The record of who did what.
    pub audit: AuditSettings,
    /// TLS, where connections are to be encrypted.
    pub tls: Option<TlsSettings>,
    /// Logs and traces of a server.
    pub telemetry: TelemetrySettings,
}

/// Logs and traces of a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    pub logs: LogSettings,
    /// Where traces are sent; nowhere without it.
    pub traces: Option<TraceSettings>,
}

/// Logs, on standard error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives as in `RUST_LOG`, which goes before.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "warn".into(),
        }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    /// One object per line.
    Json,
}

/// Where traces are sent, by OTLP over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// As in `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// The share of requests that are traced, where the caller hasn't decided.
    #[serde(default = "all")]
    pub sample_ratio: f64,
    #[serde(default = "service_name")]
    pub service_name: String,
}

fn all() -> f64 {
    1.0
}

fn service_name() -> String {
    "headwater".into()
}

/// A certificate and its key, in PEM; changed files are read again while the server runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first; from the project's folder.
    pub certificate_file: PathBuf,
    /// The private key; from the project's folder.
    pub key_file: PathBuf,
}

/// Who may call. Without any key everybody may, on a loopback address only.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// The file of keys, from the project's folder; without it `keys.json` in the data folder.
    pub keys_file: Option<PathBuf>,
    /// Keys besides those of the file, known by the SHA-256 of their text.
    pub keys: Vec<KeyRecord>,
}

/// The record of who did what, in files of the data folder; the oldest make room for new ones.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    pub file_bytes_max: u64,
    pub files_max: usize,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            file_bytes_max: 16 << 20,
            files_max: 8,
        }
    }
}

/// When the log is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Before each acknowledgement: nothing acknowledged is ever lost.
    Always,
    /// Every `sync_interval_ms`: a power cut may lose what was acknowledged since; a killed process loses nothing.
    Interval,
    /// Whenever the operating system likes.
    Never,
}

/// How facts are taken in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestSettings {
    pub sync: Sync,
    pub sync_interval_ms: u64,
    /// Requests that may wait; more are refused as busy.
    pub queue_requests_max: usize,
    /// Requests that share one durable write.
    pub group_requests_max: usize,
    /// Facts that share one durable write.
    pub group_facts_max: usize,
    /// Durable groups that may wait to be applied.
    pub groups_in_flight_max: usize,
    /// A file of the log that has reached this size is sealed, and the next one begun.
    pub segment_bytes_max: u64,
}

/// How feature state is kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSettings {
    /// About how many bytes of memory entity states may take; colder ones stay on disk.
    pub memory_bytes_max: usize,
    /// How many shards entities are spread over; 0 is one per core.
    pub shards: usize,
    /// A checkpoint is written after this many facts.
    pub checkpoint_facts: u64,
    /// Facts read again at a time while a view is filled beside live facts.
    pub fill_facts_max: usize,
    /// A view at most this many facts behind is brought to the present while live facts wait.
    pub catch_up_facts_max: u64,
    /// Memory for blocks read from disk.
    pub disk_cache_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: ".headwater".into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            grpc_listen: None,
            ingest: IngestSettings::default(),
            state: StateSettings::default(),
            archive: None,
            training_sets: TrainingSetSettings::default(),
            query: QueryOptions::default(),
            serving: ServingSettings::default(),
            webhooks: WebhookSettings::default(),
            limits: Limits::default(),
            auth: AuthSettings::default(),
            audit: AuditSettings::default(),
            tls: None,
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Default for IngestSettings {
    fn default() -> Self {
        let options = PipelineOptions::default();
        Self {
            sync: Sync::Always,
            sync_interval_ms: 100,
            queue_requests_max: options.queue_requests_max,
            group_requests_max: options.group_requests_max,
            group_facts_max: options.group_facts_max,
            groups_in_flight_max: options.groups_in_flight_max,
            segment_bytes_max: FactLogOptions::default().segment_bytes_max,
        }
    }
}

impl Default for StateSettings {
    fn default() -> Self {
        let options = ProcessorOptions::default();
        Self {
            memory_bytes_max: options.memory_bytes_max,
            shards: 0,
            checkpoint_facts: options.checkpoint_facts,
            fill_facts_max: options.fill_facts_max,
            catch_up_facts_max: options.catch_up_facts_max,
            disk_cache_bytes: 64 << 20,
        }
    }
}

impl Config {
    /// A project with a name and defaults for the rest.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            api_version: api_version(),
            kind: kind(),
            name: name.into(),
            owner: None,
            description: None,
            tags: Vec::new(),
            spec: Settings::default(),
        }
    }

    pub(crate) fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            body_bytes_max: self.spec.limits.body_bytes_max,
            rows_max: self.spec.limits.rows_max,
            row_bytes_max: self.spec.limits.row_bytes_max,
            ..DecodeLimits::default()
        }
    }

    pub(crate) fn sync_policy(&self) -> SyncPolicy {
        match self.spec.ingest.sync {
            Sync::Always => SyncPolicy::Always,
            Sync::Interval => SyncPolicy::Interval(self.spec.ingest.sync_interval_ms),
            Sync::Never => SyncPolicy::Never,
        }
    }

    pub(crate) fn pipeline_options(&self) -> PipelineOptions {
        let ingest = &self.spec.ingest;
        PipelineOptions {
            queue_requests_max: ingest.queue_requests_max.max(1),
            group_requests_max: ingest.group_requests_max.max(1),
            group_facts_max: ingest.group_facts_max.max(1),
            groups_in_flight_max: ingest.groups_in_flight_max.max(1),
        }
    }

    pub(crate) fn processor_options(&self) -> ProcessorOptions {
        let state = &self.spec.state;
        let defaults = ProcessorOptions::default();
        ProcessorOptions {
            shards: if state.shards == 0 {
                defaults.shards
            } else {
                state.shards
            },
            memory_bytes_max: state.memory_bytes_max,
            checkpoint_facts: state.checkpoint_facts.max(1),
            fill_facts_max: state.fill_facts_max.max(1),
            catch_up_facts_max: state.catch_up_facts_max,
        }
    }
}
