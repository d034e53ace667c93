//! Versions in memory: loaded, warmed up, and bound to the definitions in force.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use headwater_features::Catalog;
use headwater_models::repository::{ModelRecord, VersionRecord};
use headwater_models::{Predictor, Rows};
use headwater_schema::Problem;

use crate::OutputRow;
use crate::bind::{Binding, bind};
use crate::format::FileFormat;
use crate::last_good::LastGood;
use crate::stats::Counters;

/// The alias that answers unless another is asked.
pub(crate) const LIVE: &str = "live";
/// The rows that a version is tried with before it serves.
const WARM_UP_ROWS: usize = 16;

/// A version that can answer.
pub(crate) struct Version {
    /// No two versions that this process ever loads have the same.
    pub number: u64,
    pub name: Arc<str>,
    pub record: VersionRecord,
    pub predictor: Box<dyn Predictor>,
    pub output_names: Vec<Arc<str>>,
    pub input_names: Vec<Arc<str>>,
    /// Under the definitions that were in force when it was last asked.
    binding: RwLock<Option<Arc<Binding>>>,
}

/// A model as it is served at a moment; replaced as a whole.
pub(crate) struct Served {
    pub record: ModelRecord,
    /// Those that aliases point at, or why they couldn't be loaded.
    pub versions: BTreeMap<String, Result<Arc<Version>, Problem>>,
    /// Whether its versions were let go until it is loaded again.
    pub unloaded: bool,
    pub counters: Arc<Counters>,
    pub last_good: Arc<LastGood>,
}

/// Reads a model file and tries it, so that the first request finds it ready and a file that can't answer is
/// refused before anybody asks.
pub(crate) fn read(bytes: &[u8], format: Option<&str>) -> Result<Box<dyn Predictor>, Problem> {
    let predictor = FileFormat::of(bytes, format)?.load(bytes)?;
    let width = predictor.contract().inputs.len();
    if width == 0 {
        return Err(Problem::user("model-inputs", "the model takes no inputs"));
    }
    // An input of text takes them for places among the texts.
    let texts = ["".into(), "warm".into()];
    for value in [f64::NAN, 0.0, 1.0] {
        let numbers = vec![value; width * WARM_UP_ROWS];
        predictor.predict(Rows::new(&numbers, width)?.with_texts(&texts))?;
    }
    Ok(predictor)
}

impl Version {
    pub fn new(number: u64, record: VersionRecord, predictor: Box<dyn Predictor>) -> Self {
        let contract = predictor.contract();
        Self {
            number,
            name: record.version.as_str().into(),
            output_names: contract
                .outputs
                .iter()
                .map(|o| o.name.as_str().into())
                .collect(),
            input_names: contract
                .inputs
                .iter()
                .map(|i| i.name.as_str().into())
                .collect(),
            binding: RwLock::default(),
            predictor,
            record,
        }
    }

    /// A row of outputs by their names.
    pub fn output_row(&self, row: &[f64]) -> OutputRow {
        let mut from = 0;
        let outputs = self.predictor.contract().outputs.iter();
        let named = outputs.zip(&self.output_names).map(|(output, name)| {
            let numbers = row[from..from + output.width].to_vec();
            from += output.width;
            (name.clone(), numbers)
        });
        named.collect()
    }

    /// How it stands under the definitions of a catalog.
    pub fn binding(&self, catalog: &Arc<Catalog>, model: &str) -> Result<Arc<Binding>, Problem> {
        let bound = self.binding.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(binding) = bound.as_ref()
            && Arc::ptr_eq(&binding.catalog, catalog)
        {
            return Ok(binding.clone());
        }
        drop(bound);
        let binding = bind(catalog, model, self.predictor.contract(), &self.record)?;
        let binding = Arc::new(binding);
        let mut bound = self.binding.write().unwrap_or_else(PoisonError::into_inner);
        *bound = Some(binding.clone());
        Ok(binding)
    }
}

impl Served {
    /// The same without its versions: what is known, counted and remembered of the model stays.
    pub fn unload(&self) -> Self {
        Self {
            record: self.record.clone(),
            versions: BTreeMap::new(),
            unloaded: true,
            counters: self.counters.clone(),
            last_good: self.last_good.clone(),
        }
    }

    /// The version that a name or an alias stands for. `live` where nothing is named.
    pub fn version(&self, asked: Option<&str>) -> Result<Arc<Version>, Problem> {
        if self.unloaded {
            return Err(nothing_live());
        }
        let asked = asked.unwrap_or(LIVE);
        let aliases = &self.record.aliases;
        if asked == LIVE && !aliases.contains_key(LIVE) && self.record.version(LIVE).is_none() {
            return Err(nothing_live());
        }
        let record = self.record.find(asked)?;
        match self.versions.get(&record.version) {
            Some(Ok(version)) => Ok(version.clone()),
            Some(Err(problem)) => Err(problem.clone()),
            None => Err(Problem::user(
                "version-not-loaded",
                format!("the version `{}` isn't loaded", record.version),
            )
            .field("version")
            .hint(
                "versions are loaded that an alias points at: promote it to an alias of any name",
            )),
        }
    }

    pub fn bytes(&self) -> usize {
        let loaded = self.versions.values().filter_map(|v| v.as_ref().ok());
        loaded.map(|v| v.predictor.memory_bytes()).sum()
    }
}

/// A model that is declared and has nothing to answer with.
pub(crate) fn nothing_live() -> Problem {
    Problem::external("no-live-version", "no version of the model is live")
        .hint("add one with `headwater models add MODEL FILE --alias live`, promote one, or load what was unloaded")
}
