//! The engine as what the HTTP edge serves.

use std::sync::Arc;

use headwater_api::Backend;
use headwater_api::backend::{
    FactRow, FactsQuery, FeaturesReply, FeaturesRequest, IngestDone, IngestOptions, Measure,
    QuarantineRow, RetractDone,
};
use headwater_facts::{FactLog, FoundFacts, Lookup, Scan};
use headwater_features::Catalog;
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Contract, Position, Problem, Value, evolve};
use serde_json::{Value as Json, json};

use crate::Engine;
use crate::entity::entity_key_for;

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

    fn facts(&self, query: &FactsQuery) -> Result<Vec<FactRow>, Problem> {
        self.facts(query)
    }

    fn quarantine(&self, contract: &str, limit: usize) -> Result<Vec<QuarantineRow>, Problem> {
        self.quarantine(contract, limit)
    }

    fn registry(&self) -> Json {
        describe(&self.catalog())
    }

    fn measures(&self) -> Vec<Measure> {
        crate::measures::measures(self)
    }
}

impl Engine {
    /// Facts of a contract, of one entity or of all, newest last.
    pub fn facts(&self, query: &FactsQuery) -> Result<Vec<FactRow>, Problem> {
        let contract = self.contract(&query.contract)?;
        let from = query.from.map_or(Position::MIN, Position::before);
        let until = query.to.map_or(Position::MAX, Position::before);
        let known_at = self.known_at(query.known_at)?;
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
        rows(&contract, &found)
    }

    /// Rows of a contract that were rejected, newest first.
    pub fn quarantine(&self, contract: &str, limit: usize) -> Result<Vec<QuarantineRow>, Problem> {
        let contract = self.contract(contract)?;
        let rows = self.facts_log().quarantined(&contract.name, limit)?;
        let row = |row: headwater_facts::QuarantinedRow| QuarantineRow {
            ingest_time: row.ingest_time,
            row: row.row,
            field: row.field,
            rule: row.rule,
            reason: row.reason,
            raw: row.raw,
        };
        Ok(rows.into_iter().map(row).collect())
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

/// Everything that is defined.
fn describe(catalog: &Arc<Catalog>) -> Json {
    let contracts: Vec<Json> = catalog
        .contracts()
        .map(|c| {
            let fields = c.fields.iter().map(|f| {
                json!({"name": f.name, "type": f.data_type.to_string(), "required": f.required, "description": f.description})
            });
            json!({
                "name": c.name, "version": c.version.to_string(), "owner": c.owner, "description": c.description,
                "event_time": c.fields[c.event_time].name,
                "fact_id": c.fact_id.iter().map(|i| &c.fields[*i].name).collect::<Vec<_>>(),
                "fields": fields.collect::<Vec<_>>(),
            })
        })
        .collect();
    let entities: Vec<Json> = catalog
        .entities()
        .map(|e| {
            let keys = e.keys.iter().map(|k| json!({"name": k.name, "type": k.data_type.to_string()}));
            json!({"name": e.name, "owner": e.owner, "description": e.description, "keys": keys.collect::<Vec<_>>()})
        })
        .collect();
    let views: Vec<Json> = catalog
        .views()
        .map(|v| {
            let features = v.features.iter().map(|f| {
                json!({"name": f.full_name, "type": f.data_type.to_string(), "description": f.description})
            });
            json!({
                "name": v.name, "entity": v.entity.name, "owner": v.owner, "description": v.description,
                "contracts": v.sources.iter().map(|s| &s.contract).collect::<Vec<_>>(),
                "state": v.state_id, "definition_hash": v.definition_hash,
                "features": features.collect::<Vec<_>>(),
            })
        })
        .collect();
    let sets: Vec<Json> = catalog
        .sets()
        .map(|s| {
            let names = s.features.iter().map(|f| &f.view.features[f.index].full_name);
            json!({"name": s.name, "owner": s.owner, "description": s.description, "definition_hash": s.definition_hash, "features": names.collect::<Vec<_>>()})
        })
        .collect();
    json!({"contracts": contracts, "entities": entities, "views": views, "feature_sets": sets})
}
