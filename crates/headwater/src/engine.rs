//! The engine: every part opened in order over one data folder, and the verbs that act on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use headwater_api::backend::{
    EntityRequest, FeaturesReply, FeaturesRequest, IngestDone, IngestOptions, IngestReply, KnownAt,
    RejectedFact, RetractDone, RetractReply, StaleSource,
};
use headwater_env::{Env, FileLock};
use headwater_facts::{
    AppendRequest, Appended, Change, EmbeddedFactLog, FactLog, FactLogOptions, Mends,
};
use headwater_features::{Catalog, read_all_as_typed};
use headwater_schema::contract::suggest;
use headwater_schema::decode::{BodyFormat, DecodeLimits, Decoded, decode, decode_each};
use headwater_schema::{Contract, FactBatch, Problem, Sequence};
use headwater_serve::Serving;
use headwater_stream::{Pipeline, Processor, ProcessorStats};
use tokio::sync::watch;

use crate::Config;
use crate::apply::{Filler, ReplayRate};
use crate::archive::{Archiver, archive_options};
use crate::data::{
    DataFolder, OpenedStore, compile_applied, nothing_applied, open_store, read_registry,
};
use crate::freshness::{stale, watched_contracts};
use crate::indexes::indexes;
use crate::models::{Stores, start_serving, start_telling};
use crate::quarantine::no_fact_id;
use crate::query::Querying;
use crate::reader::{ReadStats, Reader};
use crate::training_set::Making;
use crate::webhooks::Webhooks;

/// Rows of a file that are appended together.
const FILE_BATCH_ROWS: usize = 8192;

/// An open project: takes facts and answers reads, in this process, with no server.
pub struct Engine {
    pub(crate) env: Env,
    /// The project's name.
    pub(crate) project: String,
    pub(crate) data: DataFolder,
    pub(crate) facts: Arc<EmbeddedFactLog>,
    pub(crate) processor: Arc<Processor>,
    /// Stops before the pipeline that it writes predictions to.
    pub(crate) serving: Serving,
    pub(crate) webhooks: Arc<Webhooks>,
    /// The last sequence that a read sees, for those who wait for more.
    pub(crate) applied: watch::Sender<Sequence>,
    pipeline: Arc<Pipeline>,
    /// Fills views that were applied while facts come in.
    pub(crate) filler: Filler,
    pub(crate) reader: Arc<Reader>,
    /// Takes sealed segments to the archive.
    archiver: Option<Archiver>,
    pub(crate) making: Making,
    pub(crate) querying: Querying,
    /// Held while definitions are replaced.
    pub(crate) changing: Mutex<()>,
    decode_limits: DecodeLimits,
    read_stats: ReadStats,
    report: OpenReport,
    /// Held as long as the engine lives; released last.
    _lock: Box<dyn FileLock>,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// What the log's recovery has to tell: torn bytes that were cut off, indexes made again.
    pub repairs: Vec<String>,
    /// Facts that were read again to bring views up to date.
    pub replayed: u64,
}

impl Engine {
    /// Opens the data in `folder` with the definitions that were applied to it. `progress` hears how
    /// many facts of how many have been read again. Views that were being filled when the last process
    /// ended go on being filled (see [`Engine::wait_until_filled`]).
    pub fn open(
        env: Env,
        config: &Config,
        folder: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self, Problem> {
        Self::open_over(env, config, folder, open_store, progress)
    }

    /// As [`Engine::open`], with states kept in the store that `open_store` gives once the folder is held.
    pub fn open_over(
        env: Env,
        config: &Config,
        folder: &Path,
        open_store: impl FnOnce(&Env, &DataFolder, &Config) -> Result<OpenedStore, Problem>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, Problem> {
        let data = DataFolder::new(folder);
        let lock = data.lock(&env)?;
        let registry = read_registry(&env, &data)?.ok_or_else(|| nothing_applied(folder))?;
        let catalog = Arc::new(compile_applied(&registry)?);
        let options = FactLogOptions {
            sync: config.sync_policy(),
            segment_bytes_max: config.spec.ingest.segment_bytes_max,
            archive: archive_options(&env, config, &data)?,
        };
        let (facts, recovery) =
            EmbeddedFactLog::open(&env, &data.facts(), options, indexes(&catalog))?;
        let facts = Arc::new(facts);
        let (store, mut repairs) = open_store(&env, &data, config)?;
        repairs.extend(recovery.repairs);
        let log: Arc<dyn FactLog> = facts.clone();
        let processor = Arc::new(Processor::open(
            catalog.clone(),
            log.clone(),
            store,
            config.processor_options(),
        )?);
        let rate = Arc::new(ReplayRate::default());
        let recovered = rate.measure(&env, |told| {
            processor.recover(|done, all| {
                progress(done, all);
                told(done);
            })
        });
        let replayed = recovered?.replayed;
        drop_expired(&catalog, &facts, &processor)?;
        let pipeline = Pipeline::start(log.clone(), processor.clone(), &config.pipeline_options())?;
        let pipeline = Arc::new(pipeline);
        let reader = Arc::new(Reader::new(processor.clone(), log.clone(), registry));
        let stores = Stores::new(log, &processor, &reader, &pipeline);
        let serving = start_serving(&env, config, &data, &stores)?;
        let (webhooks, applied) = start_telling(&env, config, &data, &stores, &serving);
        Ok(Self {
            serving,
            webhooks,
            applied,
            archiver: Archiver::start(&env, config, facts.clone())?,
            filler: Filler::start(&env, facts.clone(), processor.clone(), rate)?,
            making: Making::new(config.spec.training_sets.clone()),
            querying: Querying::new(config.spec.query.clone(), data.query_spill()),
            changing: Mutex::default(),
            project: config.name.clone(),
            data,
            decode_limits: config.decode_limits(),
            reader,
            read_stats: ReadStats::default(),
            env,
            facts,
            processor,
            pipeline,
            report: OpenReport { repairs, replayed },
            _lock: lock,
        })
    }

    /// The definitions in force.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.reader.in_force().catalog().clone()
    }

    /// What opening found and did.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    pub fn facts_log(&self) -> &Arc<EmbeddedFactLog> {
        &self.facts
    }

    pub fn processor_stats(&self) -> ProcessorStats {
        self.processor.stats()
    }

    pub fn pipeline_stats(&self) -> headwater_stream::PipelineStats {
        self.pipeline.stats()
    }

    pub(crate) fn contract(&self, name: &str) -> Result<Arc<Contract>, Problem> {
        let catalog = self.catalog();
        let contract = catalog.contract(name).cloned();
        contract.ok_or_else(|| {
            let near = suggest(name, catalog.contracts().map(|c| c.name.as_ref()));
            Problem::user("unknown-contract", format!("there is no contract `{name}`"))
                .detail(near)
                .hint("apply the project that defines it, or mend the name")
        })
    }

    /// Takes facts in; returns when they are durable and every later read sees them.
    pub fn ingest(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        options: IngestOptions,
    ) -> Result<IngestReply, Problem> {
        let (append, rows) = match self.decode(contract, format, body, options)? {
            Ok(ready) => ready,
            Err(reply) => return Ok(reply),
        };
        let appended = self.pipeline.append(append)?;
        Ok(rows.reply(&appended))
    }

    /// Takes facts in without waiting; `done` hears what [`Engine::ingest`] would have returned.
    pub fn submit(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        options: IngestOptions,
        done: IngestDone,
    ) {
        match self.decode(contract, format, body, options) {
            Err(problem) => done(Err(problem)),
            Ok(Err(reply)) => done(Ok(reply)),
            Ok(Ok((append, rows))) => {
                let answer = move |appended: Result<Appended, Problem>| {
                    done(appended.map(|appended| rows.reply(&appended)));
                };
                self.pipeline.submit(append, Box::new(answer));
            }
        }
    }

    /// Takes in a body of any size, batch by batch; `told` hears of each. Row numbers count through the
    /// whole body.
    pub fn ingest_each(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        revise: bool,
        mut told: impl FnMut(IngestReply),
    ) -> Result<(), Problem> {
        let contract = self.contract(contract)?;
        let options = IngestOptions {
            all_or_nothing: false,
            revise,
        };
        let limits = DecodeLimits::files();
        decode_each(
            &contract,
            format,
            body,
            &limits,
            FILE_BATCH_ROWS,
            &mut |decoded| {
                let (append, rows) = request(&contract, decoded, options)?;
                told(rows.reply(&self.pipeline.append(append)?));
                Ok(())
            },
        )
    }

    /// Takes facts in that have been decoded already, without waiting.
    pub fn submit_batch(&self, batch: FactBatch, done: IngestDone) {
        let contract = match self.contract(&batch.contract) {
            Ok(contract) => contract,
            Err(problem) => return done(Err(problem)),
        };
        let rows = RowNumbers {
            row_numbers: (0..batch.len()).collect(),
            rejected: Vec::new(),
            id_field: id_field(&contract),
        };
        let append = AppendRequest {
            dedup_window: contract.dedup_window.map(|d| d.0),
            ..AppendRequest::new(Change::Append(batch))
        };
        let answer = move |appended: Result<Appended, Problem>| {
            done(appended.map(|appended| rows.reply(&appended)));
        };
        self.pipeline.submit(append, Box::new(answer));
    }

    /// Hands a request to the pipeline and waits.
    pub(crate) fn append(&self, request: AppendRequest) -> Result<Appended, Problem> {
        self.pipeline.append(request)
    }

    /// Takes back the newest live fact with each id; returns when that is durable and every later read
    /// sees it.
    pub fn retract(&self, contract: &str, fact_ids: Vec<String>) -> Result<RetractReply, Problem> {
        let (append, ids) = self.retraction(contract, fact_ids)?;
        let appended = self.pipeline.append(append)?;
        Ok(retract_reply(ids, &appended))
    }

    /// Takes facts back without waiting; `done` hears what [`Engine::retract`] would have returned.
    pub fn submit_retraction(&self, contract: &str, fact_ids: Vec<String>, done: RetractDone) {
        match self.retraction(contract, fact_ids) {
            Err(problem) => done(Err(problem)),
            Ok((append, ids)) => {
                let answer = move |appended: Result<Appended, Problem>| {
                    done(appended.map(|appended| retract_reply(ids, &appended)));
                };
                self.pipeline.submit(append, Box::new(answer));
            }
        }
    }

    fn retraction(
        &self,
        contract: &str,
        fact_ids: Vec<String>,
    ) -> Result<(AppendRequest, Vec<String>), Problem> {
        let contract = self.contract(contract)?.name.clone();
        let append = AppendRequest::new(Change::Retract {
            contract,
            fact_ids: fact_ids.clone(),
        });
        Ok((append, fact_ids))
    }

    /// Facts ready to be appended; or the reply, where there is nothing to append.
    fn decode(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        options: IngestOptions,
    ) -> Result<Result<(AppendRequest, RowNumbers), IngestReply>, Problem> {
        let _span = tracing::info_span!("decode", contract, bytes = body.len()).entered();
        let contract = self.contract(contract)?;
        let decoded = decode(&contract, format, body, &self.decode_limits)?;
        let (append, rows) = request(&contract, decoded, options)?;
        if options.all_or_nothing && !append.rejected.is_empty() {
            return Ok(Err(IngestReply {
                accepted: 0,
                duplicates: 0,
                rejected: rows.rejected,
                sequence: self.processor.applied(),
            }));
        }
        Ok(Ok((append, rows)))
    }

    /// The last sequence that a read sees.
    pub(crate) fn known_at(&self, asked: Option<KnownAt>) -> Result<Sequence, Problem> {
        self.reader.known_at(asked)
    }

    /// The features of entities at one cursor.
    pub fn features(&self, request: &FeaturesRequest) -> Result<FeaturesReply, Problem> {
        let entities = request.entities.len();
        let _span = tracing::info_span!("read", entities).entered();
        let clock = &self.env.clock;
        let start = clock.monotonic_nanos();
        let reply = self.reader.read(request, clock.now())?;
        let took = clock.monotonic_nanos().saturating_sub(start);
        self.read_stats.count(&reply, took);
        Ok(reply)
    }

    /// Reads key values that came as text as the types of the keys they name.
    pub fn read_keys_as_typed(&self, asked: &mut EntityRequest) {
        read_all_as_typed(self.catalog().entities().map(|e| &**e), asked);
    }

    /// What is counted of feature reads.
    pub(crate) fn read_stats(&self) -> &ReadStats {
        &self.read_stats
    }

    /// Sources that are staler now than their contracts allow.
    pub fn stale_sources(&self) -> Vec<StaleSource> {
        let watched = watched_contracts(&self.catalog());
        let newest = |contract: &str| self.facts.newest(contract);
        stale(&watched, self.env.clock.now(), newest)
    }

    /// Brings every view's state to disk, so that the next start has nothing to read again.
    pub fn checkpoint(&self) -> Result<(), Problem> {
        self.processor.checkpoint()
    }

    /// Answers everything that waits, writes a checkpoint and lets the data go.
    pub fn close(mut self) -> Result<(), Problem> {
        self.webhooks.stop();
        self.serving.stop();
        if let Some(pipeline) = Arc::get_mut(&mut self.pipeline) {
            pipeline.stop();
        }
        self.filler.stop();
        if let Some(archiver) = &mut self.archiver {
            archiver.stop();
        }
        self.processor.checkpoint()?;
        self.facts.checkpoint()
    }
}

/// Decoded facts as a request to the log, and how to speak of their rows afterwards.
fn request(
    contract: &Contract,
    decoded: Decoded,
    options: IngestOptions,
) -> Result<(AppendRequest, RowNumbers), Problem> {
    if options.revise && contract.fact_id.is_empty() {
        return Err(no_fact_id(contract));
    }
    let told = decoded.rejected.iter().map(|r| RejectedFact {
        row: r.row,
        field: r.field.clone(),
        reason: r.reason.clone(),
    });
    let rows = RowNumbers {
        row_numbers: decoded.row_numbers,
        rejected: told.collect(),
        id_field: id_field(contract),
    };
    let append = AppendRequest {
        change: match options.revise {
            true => Change::Revise(decoded.batch),
            false => Change::Append(decoded.batch),
        },
        rejected: decoded.rejected,
        all_or_nothing: options.all_or_nothing,
        dedup_window: contract.dedup_window.map(|d| d.0),
        mends: Mends::default(),
    };
    Ok((append, rows))
}

fn retract_reply(ids: Vec<String>, appended: &Appended) -> RetractReply {
    let count = ids.len();
    let ids = ids.into_iter().enumerate();
    let unknown = ids.filter(|(place, _)| appended.unknown.binary_search(place).is_ok());
    let unknown: Vec<String> = unknown.map(|(_, id)| id).collect();
    RetractReply {
        retracted: count - unknown.len(),
        unknown,
        sequence: appended.last_sequence,
    }
}

/// Which input row each accepted fact was, to speak of rows as the caller counts them.
struct RowNumbers {
    row_numbers: Vec<usize>,
    rejected: Vec<RejectedFact>,
    id_field: Option<String>,
}

impl RowNumbers {
    fn reply(mut self, appended: &Appended) -> IngestReply {
        let conflicts = appended.conflicts.iter().map(|row| RejectedFact {
            row: self.row_numbers[*row],
            field: self.id_field.clone(),
            reason: "a fact with this id and another payload is known: to replace it, say to revise (`?revise=true`, `headwater ingest --revise`)".into(),
        });
        self.rejected.extend(conflicts);
        self.rejected.sort_by_key(|r| r.row);
        IngestReply {
            accepted: appended.batch.as_ref().map_or(0, |b| b.batch.len()),
            duplicates: appended.duplicates.len(),
            rejected: self.rejected,
            sequence: appended.last_sequence,
        }
    }
}

/// The field that a conflict is blamed on.
pub(crate) fn id_field(contract: &Contract) -> Option<String> {
    contract
        .fact_id
        .first()
        .map(|i| contract.fields[*i].name.to_string())
}

/// Lets facts past their contracts' retention go, once the views' states no longer need them: not while one is being filled.
fn drop_expired(
    catalog: &Catalog,
    facts: &EmbeddedFactLog,
    processor: &Processor,
) -> Result<(), Problem> {
    let stats = facts.stats();
    let cutoff = |contract: &Arc<Contract>| {
        let kept = stats.contracts.get(contract.name.as_ref())?;
        let cutoff = kept.newest.saturating_sub(contract.retention?.0);
        Some((contract.name.to_string(), cutoff))
    };
    let cutoffs: BTreeMap<String, i64> = catalog.contracts().filter_map(cutoff).collect();
    if cutoffs.is_empty() || processor.in_force().is_filling() {
        return Ok(());
    }
    processor.checkpoint()?;
    facts.enforce_retention(&cutoffs).map(drop)
}
