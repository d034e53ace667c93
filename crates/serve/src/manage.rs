//! Versions added, aliases moved, and what is told of them, while requests are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use headwater_features::{Catalog, Model, OnChangedFeatures};
use headwater_models::Predictor;
use headwater_models::repository::{
    ModelFile, ModelRecord, OutputRecord, TrainedOn, VersionRecord, alias_name,
};
use headwater_schema::time::format_timestamp;
use headwater_schema::{Blame, Problem};
use serde_json::{Value as Json, json};

use crate::Serving;
use crate::bind::inputs;
use crate::fallback::check_constants;
use crate::format::FileFormat;
use crate::last_good::LastGood;
use crate::loaded::{LIVE, Served, Version, read};
use crate::streams::StreamState;

/// A version to add.
#[derive(Debug, Clone, Default)]
pub struct NewVersion {
    /// Its name; the beginning of its file's hash by default.
    pub version: Option<String>,
    /// Told by the file itself, unless given.
    pub format: Option<String>,
    /// Aliases that are to point at it at once.
    pub aliases: Vec<String>,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub metrics: BTreeMap<String, f64>,
    /// The manifest of the training set.
    pub training_set: Option<Json>,
}

/// What an input means where nobody knows what it meant in training.
const UNKNOWN_MEANING: &str = "changed since its training";

impl Serving {
    /// Reads a model file, tries it and keeps it; only then may aliases point at it. `definitions` are the hashes
    /// of what its features stand on.
    pub fn add(
        &self,
        model: &str,
        bytes: Vec<u8>,
        new: &NewVersion,
        definitions: BTreeMap<String, String>,
    ) -> Result<Json, Problem> {
        let core = &self.core;
        let catalog = core.source.catalog();
        let declared = catalog.model(model)?.clone();
        let file = ModelFile::new(bytes)?;
        let predictor = read(&file.bytes, new.format.as_deref())?;
        check_constants(&declared.fallbacks, predictor.contract())?;
        let record = version_record(&declared, &file, predictor.as_ref(), new, definitions)?;
        let record = VersionRecord {
            added_at: core.env.clock.now(),
            ..record
        };
        let name = record.version.clone();
        let _changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = core.repository.record(model)?;
        // A version that is known already stays what it was when it came.
        let record = match known.version(&name) {
            Some(known) if is_told_the_same(known, &record) => known.clone(),
            None if declared.aliases().any(|alias| alias == name) => return Err(alias_name(&name)),
            _ => record,
        };
        let version = Version::new(core.version_number(), record.clone(), predictor);
        let version = Arc::new(version);
        if !new.aliases.is_empty() {
            refuse_unserved(&version, &catalog, model)?;
            self.refuse_full(model, &known, &new.aliases, &version)?;
        }
        let kept = core.repository.add(model, &file, record, &new.aliases)?;
        self.replace(model, kept, Some(version))?;
        self.describe(model)
    }

    /// Lets an alias point at a version, once that is loaded and fits the definitions in force.
    pub fn promote(&self, model: &str, alias: &str, version: &str) -> Result<Json, Problem> {
        let core = &self.core;
        let catalog = core.source.catalog();
        catalog.model(model)?;
        let _changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = core.repository.record(model)?;
        let loaded = self.load(model, record.find(version)?)?;
        refuse_unserved(&loaded, &catalog, model)?;
        self.refuse_full(model, &record, &[alias.to_owned()], &loaded)?;
        let kept = core.repository.promote(model, alias, version)?;
        self.replace(model, kept, Some(loaded))?;
        self.describe(model)
    }

    /// Lets an alias point where it pointed before.
    pub fn rollback(&self, model: &str, alias: &str) -> Result<Json, Problem> {
        let core = &self.core;
        let catalog = core.source.catalog();
        catalog.model(model)?;
        let _changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = core.repository.record(model)?;
        let loaded = self.load(model, record.find(record.previous(alias)?)?)?;
        refuse_unserved(&loaded, &catalog, model)?;
        self.refuse_full(model, &record, &[alias.to_owned()], &loaded)?;
        let kept = core.repository.rollback(model, alias)?;
        self.replace(model, kept, Some(loaded))?;
        self.describe(model)
    }

    /// Lets go of a version that no alias points at.
    pub fn remove(&self, model: &str, version: &str) -> Result<Json, Problem> {
        let core = &self.core;
        core.source.catalog().model(model)?;
        let _changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = core.repository.remove(model, version)?;
        self.replace(model, kept, None)?;
        self.describe(model)
    }

    /// Brings what is served in line with the definitions in force: models that are declared since are loaded,
    /// those that aren't declared any more are let go.
    pub fn refresh(&self) {
        let core = &self.core;
        let catalog = core.source.catalog();
        let _changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for model in catalog.models() {
            let record = core.repository.record(&model.name);
            let replaced = record.and_then(|record| self.replace(&model.name, record, None));
            if let Err(problem) = replaced {
                tracing::error!(model = model.name.as_ref(), %problem, "a model can't be served");
            }
        }
        let mut models = core.models.write().unwrap_or_else(PoisonError::into_inner);
        models.retain(|name, _| catalog.model(name).is_ok());
        drop(models);
        self.refresh_streams();
    }

    /// A version that is loaded already, or is now.
    fn load(&self, model: &str, record: &VersionRecord) -> Result<Arc<Version>, Problem> {
        let served = self.core.served(model).ok();
        let loaded = served.and_then(|s| s.versions.get(&record.version)?.as_ref().ok().cloned());
        if let Some(loaded) = loaded.filter(|l| l.record == *record) {
            return Ok(loaded);
        }
        let bytes = self.core.repository.file(record)?;
        let predictor = read(&bytes, Some(&record.model_format))?;
        let number = self.core.version_number();
        Ok(Arc::new(Version::new(number, record.clone(), predictor)))
    }

    /// A version that no alias points at, for whoever scores by it alone: in memory beside what is served, as far as there
    /// is room.
    pub(crate) fn loaded_alone(
        &self,
        model: &str,
        record: &VersionRecord,
    ) -> Result<Arc<Version>, Problem> {
        let version = self.load(model, record)?;
        let models = &self.core.models;
        let models = models.read().unwrap_or_else(PoisonError::into_inner);
        self.refuse_above(models.values().map(|m| m.bytes()).sum(), &version)?;
        Ok(version)
    }

    /// Bytes of what is loaded of other models.
    fn bytes_of_others(&self, model: &str) -> usize {
        let models = &self.core.models;
        let models = models.read().unwrap_or_else(PoisonError::into_inner);
        let others = models.iter().filter(|(name, _)| *name != model);
        others.map(|(_, m)| m.bytes()).sum()
    }

    /// Refuses to let aliases point at a version that there is no room for.
    fn refuse_full(
        &self,
        model: &str,
        record: &ModelRecord,
        aliases: &[String],
        ready: &Version,
    ) -> Result<(), Problem> {
        let stay = record.aliases.iter();
        let stay = stay.filter(|(alias, _)| !aliases.contains(alias));
        let stay: BTreeSet<&str> = stay.map(|(_, points)| points.version.as_str()).collect();
        let served = self.core.served(model).ok();
        let bytes = |version: &&str| {
            let served = served.as_ref()?;
            let loaded = served.versions.get(*version)?.as_ref().ok()?;
            Some(loaded.predictor.memory_bytes())
        };
        let stay = stay
            .iter()
            .filter(|version| **version != ready.name.as_ref());
        let stay: usize = stay.filter_map(bytes).sum();
        let others = self.bytes_of_others(model) + stay;
        self.refuse_above(others, ready)
    }

    /// Refuses a version that doesn't fit beside what is loaded already.
    fn refuse_above(&self, others: usize, version: &Version) -> Result<(), Problem> {
        let most = self.core.settings.loaded_bytes_max;
        let own = version.predictor.memory_bytes();
        if others.saturating_add(own) <= most {
            return Ok(());
        }
        let title = format!("there is no room to load the version `{}`", version.name);
        Err(Problem::user("limit", title)
            .detail(format!(
                "it takes {own} bytes beside {others} of at most {most}"
            ))
            .hint("let fewer aliases point at large versions, or raise `serving.loaded_bytes_max`"))
    }

    /// Serves what a model's record says: every version that an alias points at, as far as there is room.
    pub(crate) fn replace(
        &self,
        model: &str,
        record: ModelRecord,
        ready: Option<Arc<Version>>,
    ) -> Result<(), Problem> {
        let core = &self.core;
        let before = core.served(model).ok();
        let mut versions = BTreeMap::new();
        let mut bytes = self.bytes_of_others(model);
        // What is live goes first.
        let mut aliases: Vec<_> = record.aliases.iter().collect();
        aliases.sort_by_key(|(alias, _)| *alias != LIVE);
        for (_, points) in aliases {
            if versions.contains_key(&points.version) {
                continue;
            }
            let own = ready.as_ref().filter(|r| *r.name == *points.version);
            let loaded = match own {
                Some(ready) => Ok(ready.clone()),
                None => record
                    .find(&points.version)
                    .and_then(|v| self.load(model, v)),
            };
            let loaded = loaded.and_then(|loaded| {
                self.refuse_above(bytes, &loaded)?;
                bytes += loaded.predictor.memory_bytes();
                Ok(loaded)
            });
            if let Err(problem) = &loaded {
                tracing::error!(model, version = points.version, %problem, "a version can't be loaded");
            }
            versions.insert(points.version.clone(), loaded.map_err(of_the_system));
        }
        let served = Served {
            record,
            versions,
            unloaded: false,
            counters: before
                .as_ref()
                .map(|b| b.counters.clone())
                .unwrap_or_default(),
            last_good: before.map_or_else(
                || Arc::new(LastGood::new(core.settings.last_good_max)),
                |b| b.last_good.clone(),
            ),
        };
        let mut models = core.models.write().unwrap_or_else(PoisonError::into_inner);
        models.insert(model.to_owned(), Arc::new(served));
        Ok(())
    }

    /// A model's versions and aliases, for people and tools.
    pub fn describe(&self, model: &str) -> Result<Json, Problem> {
        let core = &self.core;
        let catalog = core.source.catalog();
        let declared = catalog.model(model)?;
        let served = core.served(model);
        let record = match &served {
            Ok(served) => served.record.clone(),
            Err(_) => core.repository.record(model)?,
        };
        let aliases: BTreeMap<&String, Json> = record
            .aliases
            .iter()
            .map(|(alias, points)| {
                let since = format_timestamp(points.since);
                (
                    alias,
                    json!({"version": points.version, "since": since, "before": points.before}),
                )
            })
            .collect();
        let versions = record.versions.iter().rev().map(|version| {
            let mut told = json!(version);
            told["added_at"] = json!(format_timestamp(version.added_at));
            let points = record.aliases.iter();
            let points = points.filter(|(_, p)| p.version == version.version);
            told["aliases"] = points.map(|(alias, _)| json!(alias)).collect();
            let loaded = served
                .as_ref()
                .ok()
                .and_then(|s| s.versions.get(&version.version));
            let (state, warnings) = state(loaded, &catalog, model);
            told["state"] = json!(state);
            told["warnings"] = json!(warnings);
            told
        });
        let mut told = json!({
            "model": model, "owner": declared.owner, "description": declared.description,
            "feature_set": declared.set.name, "aliases": aliases,
            "versions": versions.collect::<Vec<_>>(),
        });
        if let Some(on) = &declared.on {
            told["on"] = self.describe_stream(model, &on.contract.name);
        }
        Ok(told)
    }

    /// How a model stands with the facts that it is declared to score.
    fn describe_stream(&self, model: &str, contract: &str) -> Json {
        let mut told = json!({"contract": contract, "state": "scoring"});
        match self.streams.state(model) {
            StreamState::Scoring => {}
            StreamState::Stopped => told["state"] = json!("stopped"),
            StreamState::Refused(problem) => {
                told["state"] = json!("refused");
                told["reason"] = json!(problem.to_string());
            }
        }
        told
    }

    /// All models that are declared.
    pub fn list(&self) -> Result<Json, Problem> {
        let catalog = self.core.source.catalog();
        let all = catalog.models().map(|model| self.describe(&model.name));
        Ok(json!({"models": all.collect::<Result<Vec<_>, _>>()?}))
    }
}

/// Whether what a caller says of a version is what was said before, or nothing.
fn is_told_the_same(known: &VersionRecord, now: &VersionRecord) -> bool {
    let (then, now_told) = (&known.trained_on, &now.trained_on);
    let silent =
        now.metrics.is_empty() && now.description.is_none() && now_told.training_set.is_none();
    let same = known.metrics == now.metrics
        && known.description == now.description
        && then.training_set == now_told.training_set;
    known.sha256 == now.sha256 && (silent || same)
}

/// A version that can't be loaded is no fault of whoever asks for a prediction.
fn of_the_system(mut problem: Problem) -> Problem {
    problem.blame = Blame::External;
    problem
}

/// How a version stands, and what is wrong with it.
fn state(
    loaded: Option<&Result<Arc<Version>, Problem>>,
    catalog: &Arc<Catalog>,
    model: &str,
) -> (&'static str, Vec<String>) {
    match loaded {
        None => ("kept", Vec::new()),
        Some(Err(problem)) => ("failed", vec![problem.to_string()]),
        Some(Ok(version)) => match version.binding(catalog, model) {
            Err(problem) => ("failed", vec![problem.to_string()]),
            Ok(binding) => match &binding.refused {
                Some(problem) => ("refused", vec![problem.to_string()]),
                None => ("serving", binding.warnings.clone()),
            },
        },
    }
}

fn refuse_unserved(version: &Version, catalog: &Arc<Catalog>, model: &str) -> Result<(), Problem> {
    let binding = version.binding(catalog, model)?;
    check_constants(&binding.model.fallbacks, version.predictor.contract())?;
    match &binding.refused {
        // Here it is the caller who named it.
        Some(problem) => Err(Problem::user(problem.code, problem.title.clone())
            .detail(&problem.detail)
            .hint(&problem.hint)),
        None => Ok(()),
    }
}

fn version_record(
    declared: &Model,
    file: &ModelFile,
    predictor: &dyn Predictor,
    new: &NewVersion,
    definitions: BTreeMap<String, String>,
) -> Result<VersionRecord, Problem> {
    let contract = predictor.contract();
    let mut inputs = inputs(declared, contract)?;
    let mut trained_on = TrainedOn {
        feature_set: declared.set.name.to_string(),
        definitions,
        training_set: new.training_set.clone(),
    };
    if let Some(manifest) = &new.training_set {
        let changed = changed_since(manifest, &trained_on.definitions)?;
        if !changed.is_empty() {
            if declared.on_changed_features == OnChangedFeatures::Refuse {
                return Err(changed_definitions(&changed));
            }
            for input in &mut inputs {
                input.meaning = UNKNOWN_MEANING.to_owned();
            }
        }
        trained_on.definitions = hashes(manifest)?;
    }
    let format = FileFormat::of(&file.bytes, new.format.as_deref())?;
    let outputs = contract.outputs.iter().map(|o| OutputRecord {
        name: o.name.clone(),
        width: o.width,
    });
    Ok(VersionRecord {
        version: new.version.clone().unwrap_or_else(|| file.version()),
        sha256: file.sha256.clone(),
        bytes: file.bytes.len() as u64,
        model_format: format.name().to_owned(),
        added_at: 0,
        owner: new.owner.clone().or_else(|| declared.owner.clone()),
        description: new.description.clone(),
        inputs,
        outputs: outputs.collect(),
        trained_on,
        metrics: new.metrics.clone(),
    })
}

/// The hashes of definitions that a training set's manifest names.
fn hashes(manifest: &Json) -> Result<BTreeMap<String, String>, Problem> {
    let hashes = serde_json::from_value(manifest["definitions"].clone());
    hashes.map_err(|e| {
        Problem::user("training-set", "this is no manifest of a training set")
            .field("training_set")
            .detail(e)
            .hint("give the file that `headwater training-set` wrote beside the table")
    })
}

/// The definitions of features that a manifest has under another hash.
fn changed_since(manifest: &Json, now: &BTreeMap<String, String>) -> Result<Vec<String>, Problem> {
    let of_features = |name: &String| {
        ["views/", "entities/", "feature_sets/"]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    let then = hashes(manifest)?;
    let then = then.into_iter().filter(|(name, _)| of_features(name));
    let changed = then.filter(|(name, hash)| now.get(name) != Some(hash));
    Ok(changed.map(|(name, _)| name).collect())
}

fn changed_definitions(changed: &[String]) -> Problem {
    Problem::user(
        "features-changed",
        "the model was trained on other definitions",
    )
    .field("training_set")
    .detail(format!("changed since: {}", changed.join(", ")))
    .hint("train it on a training set of now, or let the model's `on_changed_features` be `warn`")
}
