//! An opened bundle: its definitions compiled, its states and facts where reads find them, its model loaded.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use headwater_env::Env;
use headwater_facts::{FactLog, MemoryFactLog, Restored};
use headwater_features::{
    Catalog, FeatureSet, FeatureStore, MemoryFeatureStore, StoreWrite, StoredState, entity_names,
};
use headwater_models::repository::ModelFile;
use headwater_schema::{EntityKey, Micros, Problem, Sequence};
use headwater_serve::Scorer;
use headwater_stream::{Processor, ProcessorOptions, ViewReads};

use crate::bundle::{Bundle, Head};
use crate::journal::{Identity, Journal};
use crate::local::Local;

/// Sequences beyond this leave no room for facts to come.
const SEQUENCE_MAX: Sequence = 1 << 62;

/// A model and what is known of some entities, in this process. All calls may come from any thread; those that add facts
/// wait for each other.
pub struct Edge {
    pub(crate) env: Env,
    pub(crate) head: Head,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) set: Arc<FeatureSet>,
    /// The names of a row of the set.
    pub(crate) names: Arc<[Arc<str>]>,
    /// What entities may be named by.
    pub(crate) entity_names: HashSet<Arc<str>>,
    pub(crate) views: Vec<ViewReads>,
    pub(crate) log: Arc<MemoryFactLog>,
    pub(crate) processor: Processor,
    pub(crate) scorer: Scorer,
    /// Whom the bundle was made for.
    pub(crate) entities: HashSet<(Arc<str>, EntityKey)>,
    pub(crate) local: Mutex<Local>,
    repairs: Vec<String>,
}

/// What an opened bundle says of itself.
#[derive(Debug, Clone)]
pub struct About {
    pub head: Head,
    /// The model's inputs, in the order of raw vectors.
    pub inputs: Vec<String>,
    /// The model's outputs, each with how many numbers it has, in the order of raw answers.
    pub outputs: Vec<(String, usize)>,
    /// Entities that it was made for.
    pub entities: usize,
    /// Facts told here.
    pub local_facts: usize,
    /// What opening the journal had to mend.
    pub repairs: Vec<String>,
}

impl Edge {
    /// Opens a bundle that lies in memory; facts told to it are gone with it.
    pub fn open(bytes: &[u8]) -> Result<Self, Problem> {
        Self::open_with(Env::real(), bytes, None)
    }

    /// Opens the bundle at a path. With a journal, facts that were told to it before are there again, and those to come
    /// are on the disk before they count.
    pub fn open_file(path: &Path, journal: Option<&Path>) -> Result<Self, Problem> {
        let env = Env::real();
        let bytes = Bundle::read(&env, path)?;
        Self::open_with(env, &bytes, journal)
    }

    /// The same on another clock and disk.
    pub fn open_with(env: Env, bytes: &[u8], journal: Option<&Path>) -> Result<Self, Problem> {
        let bundle = Bundle::from_bytes(bytes)?;
        let identity = Identity::of(bytes, bundle.head.made_at);
        let mut edge = Self::of(env, bundle)?;
        if let Some(path) = journal {
            let (journal, entries, repair) = Journal::open(&edge.env, path, identity)?;
            edge.repairs.extend(repair);
            edge.replay(entries)?;
            edge.keep_journal(journal);
        }
        Ok(edge)
    }

    fn of(env: Env, bundle: Bundle) -> Result<Self, Problem> {
        let head = bundle.head;
        if head.sequence > SEQUENCE_MAX || head.first_sequence > head.sequence + 1 {
            return Err(unusable("its sequences are impossible"));
        }
        let catalog = bundle.definitions.compile().map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            unusable("its definitions don't compile here").detail(first.unwrap_or_default())
        })?;
        let catalog = Arc::new(catalog);
        let model = catalog.model(&head.model).map_err(|_| {
            unusable("it lacks its model").detail(format!("no definition of `{}`", head.model))
        })?;
        let set = model.set.clone();
        let file = ModelFile::new(bundle.model_file)?;
        if file.sha256 != bundle.record.sha256 {
            return Err(unusable("its model file is another than its record says"));
        }
        let scorer = Scorer::new(&catalog, &head.model, bundle.record, &file.bytes)?;
        drop(file);
        let log = MemoryFactLog::restored(env.clone(), restored(&head, bundle.facts))?;
        let log = Arc::new(log);
        let store = store(&catalog, head.sequence, bundle.states)?;
        let facts: Arc<dyn FactLog> = log.clone();
        let processor = Processor::open(catalog.clone(), facts, store, options())?;
        processor.recover(|_, _| ())?;
        let resolved = catalog.resolve_set(&set.name)?;
        Ok(Self {
            views: ViewReads::of(&processor.in_force(), &resolved)?,
            names: set.full_names().cloned().collect(),
            entity_names: entity_names(&catalog),
            entities: entities(&catalog, &bundle.entities)?,
            local: Mutex::default(),
            repairs: Vec::new(),
            env,
            head,
            set,
            log,
            processor,
            scorer,
            catalog,
        })
    }

    /// What it is of, takes and answers.
    pub fn about(&self) -> About {
        let contract = self.scorer.contract();
        let outputs = contract.outputs.iter();
        About {
            head: self.head.clone(),
            inputs: contract.inputs.iter().map(|i| i.name.clone()).collect(),
            outputs: outputs.map(|o| (o.name.clone(), o.width)).collect(),
            entities: self.entities.len(),
            local_facts: self.local_facts(),
            repairs: self.repairs.clone(),
        }
    }

    /// How many numbers a raw vector has.
    pub fn inputs(&self) -> usize {
        self.scorer.contract().inputs.len()
    }

    /// How many numbers the answer to one row has.
    pub fn outputs(&self) -> usize {
        self.scorer.contract().output_width()
    }
}

/// A bundle that is whole and can't be used all the same.
fn unusable(why: &str) -> Problem {
    Problem::external(
        "bundle-unusable",
        format!("the bundle can't be used: {why}"),
    )
    .hint("make it again with the version of Headwater that this library is of")
}

/// One shard, and nothing leaves memory: all there is came with the bundle.
fn options() -> ProcessorOptions {
    ProcessorOptions {
        shards: 1,
        memory_bytes_max: usize::MAX,
        checkpoint_facts: u64::MAX,
        ..ProcessorOptions::default()
    }
}

fn restored(head: &Head, facts: Vec<headwater_facts::KeptFacts>) -> Restored {
    // A log that begins with sequence 1 is taken to have let nothing go.
    let least = if head.missing_to.is_empty() { 1 } else { 2 };
    Restored {
        facts,
        sequences: (head.first_sequence.max(least), head.sequence),
        dropped: head.missing_to.clone(),
        ingest_time: Micros::MIN,
    }
}

/// A store that stands where the server stood. States of views that are others here are refused.
fn store(
    catalog: &Catalog,
    sequence: Sequence,
    states: Vec<StoredState>,
) -> Result<Arc<dyn FeatureStore>, Problem> {
    let kept = catalog.views().filter(|view| !view.is_chained());
    let mut positions: BTreeMap<String, Sequence> =
        kept.map(|view| (view.state_id.clone(), sequence)).collect();
    if let Some(other) = states.iter().find(|s| !positions.contains_key(&s.view)) {
        return Err(unusable("it holds states that aren't kept so here").detail(&other.view));
    }
    positions.insert(Processor::APPLIED.to_owned(), sequence);
    let store = MemoryFeatureStore::default();
    store.write(&StoreWrite { states, positions })?;
    Ok(Arc::new(store))
}

fn entities(
    catalog: &Catalog,
    listed: &[(String, Vec<u8>)],
) -> Result<HashSet<(Arc<str>, EntityKey)>, Problem> {
    let entity = |(name, key): &(String, Vec<u8>)| {
        let entity = catalog
            .entity(name)
            .ok_or_else(|| unusable("it names an entity that it doesn't define").detail(name))?;
        Ok((entity.name.clone(), EntityKey::from_bytes(key)))
    };
    listed.iter().map(entity).collect()
}
