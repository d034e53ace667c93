//! The engine as what the edge serves.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::backend::{
    BundleRequest, DefinitionFile, DefinitionsRequest, FactRow, FactsQuery, FeaturesReply,
    FeaturesRequest, IndexedVersion, IngestDone, IngestOptions, Measure, MendReply, Mending,
    ModelStats, Names, NewVersion, Pending, PredictDone, PredictRequest, QuarantineRow,
    QueryRequest, ReadShape, RegistryQuery, RetractDone, ScoreRequest, Signature,
    TrainingSetRequest, WriteTarget,
};
use headwater_api::{Backend, PredictionPage};
use headwater_batch::sql::Answer;
use headwater_batch::{Pieces, Stop};
use headwater_facts::{FactLog, FoundFacts, Lookup, Scan, refuse_before_kept};
use headwater_features::{FeatureKind, Plan, entity_key_for};
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Contract, Position, Problem, Sequence, Value, evolve};
use serde_json::{Value as Json, json};

use crate::describe::{Running, describe};
use crate::predictions::read_predictions;
use crate::{Engine, project_name, read_definitions};

/// About how long one call archives; the next one goes on.
const ARCHIVED_FOR: Duration = Duration::from_secs(15);

impl Backend for Engine {
    fn submit(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        options: IngestOptions,
        done: IngestDone,
    ) {
        self.submit(contract, format, body, options, done);
    }

    fn retract(&self, contract: &str, fact_ids: Vec<String>, done: RetractDone) {
        self.submit_retraction(contract, fact_ids, done);
    }

    fn features(&self, request: &FeaturesRequest) -> Result<FeaturesReply, Problem> {
        self.features(request)
    }

    fn training_set(
        &self,
        request: &TrainingSetRequest,
        format: BodyFormat,
        spine: &mut Pieces<'_>,
        stop: &Stop,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Problem> {
        self.stream_training_set(request, format, spine, stop, out)
    }

    fn score(
        &self,
        request: &ScoreRequest,
        format: BodyFormat,
        rows: &mut Pieces<'_>,
        stop: &Stop,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Problem> {
        self.stream_scores(request, format, rows, stop, out)
    }

    fn query(&self, request: &QueryRequest) -> Result<Answer, Problem> {
        self.query(request)
    }

    fn facts(&self, query: &FactsQuery) -> Result<Vec<FactRow>, Problem> {
        self.facts(query)
    }

    fn quarantine(
        &self,
        contract: &str,
        resolved: bool,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, Problem> {
        self.quarantine(contract, resolved, limit)
    }

    fn mend(&self, contract: &str, mending: Mending, revise: bool) -> Result<MendReply, Problem> {
        self.mend(contract, mending, revise)
    }

    fn contract(&self, name: &str) -> Result<Arc<Contract>, Problem> {
        self.contract(name)
    }

    fn shape(&self, names: &Names) -> Result<Arc<ReadShape>, Problem> {
        Ok(self.reader.plan(names)?.shape.clone())
    }

    fn view_features(&self, view: &str) -> Result<Vec<String>, Problem> {
        let catalog = self.catalog();
        let view = catalog.known_view(view)?;
        let names = view.features.iter().map(|f| f.full_name.to_string());
        Ok(names.collect())
    }

    fn write_target(&self, view: &str) -> Result<WriteTarget, Problem> {
        self.write_target(view)
    }

    fn registry(&self, query: &RegistryQuery) -> Result<Json, Problem> {
        let (in_force, registry) = self.reader.definitions();
        let filling = |view: &str| Some(self.fill_progress(in_force.view(view)?.filled()?));
        let running = Running {
            filling: &filling,
            unknown: &|contract: &str| {
                let unknown = self.facts_log().unknown_fields(contract);
                (unknown.fields > 0).then_some(unknown)
            },
        };
        describe(&registry, in_force.catalog(), &running, query)
    }

    fn project(&self) -> &str {
        &self.project
    }

    fn plan(&self, request: &DefinitionsRequest) -> Result<Json, Vec<Problem>> {
        self.check_project(&request.files).map_err(|p| vec![p])?;
        let (_, catalog) = read_definitions(&request.files)?;
        let plan = self.plan(&catalog);
        if plan.problems.is_empty() {
            Ok(self.planned(&plan))
        } else {
            Err(plan.problems)
        }
    }

    fn apply(&self, request: &DefinitionsRequest) -> Result<Json, Vec<Problem>> {
        self.check_project(&request.files).map_err(|p| vec![p])?;
        let (documents, catalog) = read_definitions(&request.files)?;
        let plan = self.apply(&documents, &Arc::new(catalog), request.if_version)?;
        Ok(self.planned(&plan))
    }

    fn archive(&self) -> Result<Json, Problem> {
        self.archive_state()
    }

    fn run_archive(&self) -> Result<Json, Problem> {
        self.archive_now(ARCHIVED_FOR)
    }

    fn backfill(&self, views: &[String]) -> Result<Json, Problem> {
        Ok(json!({"filling": self.backfill(views)?}))
    }

    fn predict(
        &self,
        request: PredictRequest,
        done: PredictDone,
    ) -> Result<Arc<dyn Pending>, Problem> {
        self.serving.submit(request, done)
    }

    fn predictions(
        &self,
        model: &str,
        after: Sequence,
        facts_max: usize,
    ) -> Result<PredictionPage, Problem> {
        let until = self
            .processor
            .applied()
            .max(after.min(self.facts.last_sequence()));
        let facts = self.facts.as_ref();
        read_predictions(facts, &self.catalog(), model, (after, until), facts_max)
    }

    fn applied(&self) -> tokio::sync::watch::Receiver<Sequence> {
        self.applied.subscribe()
    }

    fn models(&self, model: Option<&str>) -> Result<Json, Problem> {
        self.models(model)
    }

    fn signature(&self, model: &str, version: Option<&str>) -> Result<Signature, Problem> {
        self.serving.signature(model, version)
    }

    fn model_index(&self) -> Vec<IndexedVersion> {
        self.serving.index()
    }

    fn load_model(&self, model: &str) -> Result<(), Problem> {
        self.serving.load_model(model)
    }

    fn unload_model(&self, model: &str) -> Result<(), Problem> {
        self.serving.unload_model(model)
    }

    fn bundle(&self, request: &BundleRequest) -> Result<Vec<u8>, Problem> {
        self.bundle(request)
    }

    fn model_stats(&self) -> Vec<ModelStats> {
        self.serving.stats().models
    }

    fn add_model(&self, model: &str, file: Vec<u8>, version: &NewVersion) -> Result<Json, Problem> {
        self.add_model(model, file, version)
    }

    fn promote(&self, model: &str, alias: &str, version: &str) -> Result<Json, Problem> {
        self.serving.promote(model, alias, version)
    }

    fn rollback(&self, model: &str, alias: &str) -> Result<Json, Problem> {
        self.serving.rollback(model, alias)
    }

    fn remove_version(&self, model: &str, version: &str) -> Result<Json, Problem> {
        self.serving.remove(model, version)
    }

    fn measures(&self) -> Vec<Measure> {
        crate::measures::measures(self)
    }
}

impl Engine {
    /// Refuses definitions of another project: in force, they would drop everything of this one. So would none at all.
    fn check_project(&self, files: &[DefinitionFile]) -> Result<(), Problem> {
        if files.is_empty() {
            return Err(Problem::user("no-definitions", "no file was sent")
                .field("files")
                .detail("in force, that would drop every definition there is")
                .hint("send the project's files, as `headwater apply --server` does"));
        }
        match project_name(files) {
            Some(name) if name != self.project => {
                let title = format!("these are definitions of the project `{name}`");
                Err(Problem::user("other-project", title)
                    .field("files")
                    .detail(format!("the server serves `{}`; all of that would be dropped", self.project))
                    .hint("ask the server of that project; where a project was renamed, start its server again first"))
            }
            _ => Ok(()),
        }
    }

    fn planned(&self, plan: &Plan) -> Json {
        let (_, registry) = self.reader.definitions();
        let mut planned = json!(plan);
        planned["version"] = json!(registry.version());
        planned["filling"] = json!(self.filling());
        planned
    }

    /// Facts of a contract, of one entity or of all, newest last.
    pub fn facts(&self, query: &FactsQuery) -> Result<Vec<FactRow>, Problem> {
        let contract = self.contract(&query.contract)?;
        let from = query.from.map_or(Position::MIN, Position::before);
        let until = query.to.map_or(Position::MAX, Position::before);
        let known_at = self.known_at(query.known_at)?;
        refuse_before_kept(self.facts_log().as_ref(), &contract.name, None, known_at)?;
        let found = match &query.entity {
            None => self.facts_log().scan(&Scan {
                contract: contract.name.clone(),
                from,
                until,
                known_at,
                newest: query.limit,
            })?,
            Some(asked) => {
                let catalog = self.catalog();
                let (entity, key) = entity_key_for(&catalog, asked)?;
                let missing = entity
                    .keys
                    .iter()
                    .find(|k| contract.field_index(&k.name).is_none());
                if let Some(missing) = missing {
                    return Err(Problem::user(
                        "wrong-entity",
                        format!(
                            "facts of `{}` aren't about `{}`",
                            contract.name, entity.name
                        ),
                    )
                    .field("entity")
                    .detail(format!("the contract has no column `{}`", missing.name)));
                }
                self.facts_log().lookup(&Lookup {
                    contract: contract.name.clone(),
                    key_columns: entity.keys.iter().map(|k| k.name.clone()).collect(),
                    key,
                    from,
                    until,
                    known_at,
                    newest: Some(query.limit),
                })?
            }
        };
        if found.order.is_empty() {
            refuse_before_kept(
                self.facts_log().as_ref(),
                &contract.name,
                query.to,
                known_at,
            )?;
        }
        rows(&contract, &found)
    }

    /// Where facts go that are written under a view's name: to its only source, under the names of
    /// its keys and of its latest values too.
    pub fn write_target(&self, view: &str) -> Result<WriteTarget, Problem> {
        let catalog = self.catalog();
        let view = catalog.known_view(view)?;
        let [source] = view.sources.as_slice() else {
            let contracts = view.sources.iter().map(|s| s.contract.as_ref());
            return Err(Problem::user(
                "several-sources",
                format!("the view `{}` has several sources", view.name),
            )
            .hint(format!(
                "write to one of its contracts by name: {}",
                contracts.collect::<Vec<_>>().join(", ")
            )));
        };
        let contract = self.contract(&source.contract)?;
        let mut aliases = BTreeMap::new();
        for feature in &view.features {
            let FeatureKind::Latest { slot } = feature.kind else {
                continue;
            };
            let input = view.layout.slots[slot].input;
            let expression = input.and_then(|i| source.inputs[i].as_ref());
            if let Some(column) = expression.and_then(|e| e.bare()) {
                let column = contract.fields[column].name.clone();
                aliases.insert(feature.name.to_string(), column);
            }
        }
        for (key, column) in view.entity.keys.iter().zip(&source.key_columns) {
            aliases.insert(key.name.to_string(), column.clone());
        }
        Ok(WriteTarget { contract, aliases })
    }
}

fn rows(contract: &Contract, found: &FoundFacts) -> Result<Vec<FactRow>, Problem> {
    let mut columns = Vec::with_capacity(found.runs.len());
    for run in &found.runs {
        columns.push(evolve::project(&run.columns, contract)?);
    }
    let row = |(run, row): &(usize, usize)| {
        let (facts, columns) = (&found.runs[*run], &columns[*run]);
        let fields = contract.fields.iter().zip(columns.columns());
        let sequence = facts.sequences[*row];
        FactRow {
            fact_id: match &facts.fact_ids {
                Some(ids) => ids[*row].clone(),
                None => sequence.to_string(),
            },
            event_time: facts.event_times[*row],
            ingest_time: facts.ingest_time,
            sequence,
            values: fields
                .map(|(field, column)| (field.name.clone(), Value::from_array(column, *row)))
                .collect(),
        }
    };
    Ok(found.order.iter().map(row).collect())
}
