//! The registry as its readers get it: what is defined, since when, by whom, and what reads what. The
//! same over HTTP and on the command line.

use headwater_api::backend::RegistryQuery;
use headwater_facts::UnknownFields;
use headwater_features::{
    Catalog, CompiledView, DefinitionDocument, DefinitionKind, DefinitionVersion, Direction,
    FeatureSet, Label, Lineage, Node, NodeKind, Registry, search,
};
use headwater_schema::time::{Duration, format_timestamp};
use headwater_schema::{Contract, Problem};
use serde_json::{Map, Value as Json, json};

use crate::apply::FillProgress;

/// How far a view has been filled, while it is being filled; none once it serves.
pub type Filling<'a> = dyn Fn(&str) -> Option<FillProgress> + 'a;

/// What facts of a contract brought that it doesn't know; none where there was nothing.
pub type Unknown<'a> = dyn Fn(&str) -> Option<UnknownFields> + 'a;

/// What only a process knows that has the data open.
pub struct Running<'a> {
    pub filling: &'a Filling<'a>,
    pub unknown: &'a Unknown<'a>,
}

impl Running<'static> {
    /// Where there is no such process.
    pub fn nothing() -> Self {
        Self {
            filling: &|_| None,
            unknown: &|_| None,
        }
    }
}

/// Answers a query of the registry.
pub fn describe(
    registry: &Registry,
    catalog: &Catalog,
    running: &Running<'_>,
    query: &RegistryQuery,
) -> Result<Json, Problem> {
    let teller = Teller {
        registry,
        catalog,
        running,
    };
    match query {
        RegistryQuery::All => Ok(teller.all()),
        RegistryQuery::Kind(kind) => Ok(teller.kind(*kind)),
        RegistryQuery::One {
            kind,
            name,
            version,
        } => teller.one(*kind, name, *version),
        RegistryQuery::Search { text, limit } => {
            Ok(json!({"found": search(registry, catalog, text, *limit)}))
        }
        RegistryQuery::Lineage { of, direction } => teller.lineage(of, *direction),
    }
}

struct Teller<'a> {
    registry: &'a Registry,
    catalog: &'a Catalog,
    running: &'a Running<'a>,
}

impl Teller<'_> {
    fn all(&self) -> Json {
        let mut all = Map::new();
        all.insert("version".into(), json!(self.registry.version()));
        let applied_at = self.registry.applied_at().map(format_timestamp);
        all.insert("applied_at".into(), json!(applied_at));
        for kind in DefinitionKind::ALL {
            all.insert(kind.plural().into(), self.kind(kind));
        }
        Json::Object(all)
    }

    fn kind(&self, kind: DefinitionKind) -> Json {
        let definitions = self.registry.definitions();
        let mut same: Vec<&DefinitionDocument> =
            definitions.iter().filter(|d| d.kind == kind).collect();
        same.sort_by(|a, b| a.name.cmp(&b.name));
        same.into_iter().map(|d| self.item(d)).collect()
    }

    /// A definition in force: what all have, and what its kind has.
    fn item(&self, definition: &DefinitionDocument) -> Json {
        let name = definition.name.as_str();
        let current = self.registry.current(definition.kind, name);
        let mut item = json!({
            "name": name, "file": definition.file, "owner": definition.owner,
            "description": definition.description, "tags": definition.tags,
            "definition_version": current.map(|v| v.version),
            "definition_hash": current.map(|v| &v.hash),
            "applied_at": current.and_then(|v| v.applied_at).map(format_timestamp),
        });
        let own = match definition.kind {
            DefinitionKind::Contract => self.catalog.contract(name).map(|c| {
                let mut told = contract(c);
                let unknown = (self.running.unknown)(name);
                told["unknown_fields"] = json!(unknown.as_ref().map(unknown_fields));
                told
            }),
            DefinitionKind::Entity => self.catalog.entity(name).map(|e| {
                let keys = e.keys.iter();
                let keys = keys.map(|k| json!({"name": k.name, "type": k.data_type.to_string()}));
                json!({"keys": keys.collect::<Vec<_>>()})
            }),
            DefinitionKind::View => self.catalog.view(name).map(|v| self.view(v)),
            DefinitionKind::FeatureSet => self.catalog.set(name).map(|s| feature_set(s)),
            DefinitionKind::Label => self.catalog.label(name).ok().map(|l| label(l)),
            DefinitionKind::Model => self.catalog.model(name).ok().map(|m| {
                let deadline = Duration(m.deadline).to_string();
                json!({"feature_set": m.set.name, "deadline": deadline, "logged": m.logged})
            }),
        };
        if let (Json::Object(item), Some(Json::Object(own))) = (&mut item, own) {
            item.extend(own);
        }
        item
    }

    fn view(&self, view: &CompiledView) -> Json {
        let features = view.features.iter().map(|f| {
            json!({"name": f.full_name, "type": f.data_type.to_string(), "description": f.description, "error_bound": f.error_bound})
        });
        let progress = (self.running.filling)(&view.name);
        let upstream = view.sources.iter().filter_map(|s| s.upstream.as_ref());
        let upstream = upstream.map(|u| &u.view.name);
        let status = match progress {
            Some(_) => "backfilling",
            None => "serving",
        };
        json!({
            "entity": view.entity.name,
            "contracts": view.sources.iter().map(|s| &s.contract).collect::<Vec<_>>(),
            "upstream": upstream.collect::<Vec<_>>(),
            "state": view.state_id, "status": status,
            "filled_to": progress.as_ref().map(|p| p.filled_to.to_string()),
            "filling": progress.as_ref().map(fill),
            "features": features.collect::<Vec<_>>(),
        })
    }

    fn one(&self, kind: DefinitionKind, name: &str, version: Option<u64>) -> Result<Json, Problem> {
        let versions = self.registry.versions(kind, name);
        let mut one = match self.registry.definition(kind, name) {
            Ok(definition) => self.item(&definition),
            Err(_) if !versions.is_empty() => json!({"name": name, "dropped": true}),
            Err(problem) => return Err(problem),
        };
        let asked = match version {
            Some(asked) => Some(find_version(versions, asked, name)?),
            None => versions.last(),
        };
        one["kind"] = json!(kind.as_str());
        one["document"] = json!(asked.and_then(|v| v.document.as_ref()));
        if let (Some(asked), true) = (asked, version.is_some()) {
            one["definition_version"] = json!(asked.version);
            one["definition_hash"] = json!(asked.hash);
        }
        let told = versions.iter().rev().map(|v| {
            json!({
                "definition_version": v.version, "definition_hash": v.hash,
                "applied_at": v.applied_at.map(format_timestamp),
                "registry_version": v.registry, "dropped": v.document.is_none(),
            })
        });
        one["versions"] = told.collect();
        Ok(one)
    }

    fn lineage(&self, of: &str, direction: Direction) -> Result<Json, Problem> {
        let lineage = Lineage::of(self.catalog);
        let start = lineage.find(of)?;
        let walk = lineage.walk(&start, direction);
        let nodes = walk.nodes.iter().map(|node| {
            json!({"id": node.to_string(), "kind": node.kind.as_str(), "name": node.name, "owner": self.owner(node)})
        });
        let edges = walk
            .edges
            .iter()
            .map(|e| json!({"from": e.from.to_string(), "to": e.to.to_string(), "role": e.role}));
        let direction = match direction {
            Direction::Downstream => "downstream",
            Direction::Upstream => "upstream",
        };
        Ok(json!({
            "of": start.to_string(), "direction": direction,
            "nodes": nodes.collect::<Vec<_>>(), "edges": edges.collect::<Vec<_>>(),
        }))
    }

    fn owner(&self, node: &Node) -> Option<&String> {
        let first = node.name.split('.').next().unwrap_or_default();
        match node.kind {
            NodeKind::Contract | NodeKind::Column => self.catalog.contract(first)?.owner.as_ref(),
            NodeKind::Entity => self.catalog.entity(first)?.owner.as_ref(),
            NodeKind::View | NodeKind::Feature => self.catalog.view(first)?.owner.as_ref(),
            NodeKind::FeatureSet | NodeKind::OnDemand | NodeKind::Context => {
                self.catalog.set(first)?.owner.as_ref()
            }
            NodeKind::Label => self.catalog.label(first).ok()?.owner.as_ref(),
            NodeKind::Model => self.catalog.model(first).ok()?.owner.as_ref(),
        }
    }
}

/// How far a view has been filled.
fn fill(progress: &FillProgress) -> Json {
    json!({
        "facts_done": progress.facts_done, "facts_total": progress.facts_total,
        "facts_per_second": progress.facts_per_second, "seconds_left": progress.seconds_left,
        "problem": progress.problem.as_ref().map(ToString::to_string),
    })
}

fn find_version<'a>(
    versions: &'a [DefinitionVersion],
    asked: u64,
    name: &str,
) -> Result<&'a DefinitionVersion, Problem> {
    versions.iter().find(|v| v.version == asked).ok_or_else(|| {
        let kept: Vec<String> = versions.iter().map(|v| v.version.to_string()).collect();
        Problem::user("not-found", format!("`{name}` has no version {asked}"))
            .field("version")
            .hint(format!("there are: {}", kept.join(", ")))
    })
}

fn contract(contract: &Contract) -> Json {
    let fields = contract.fields.iter().map(|f| {
        json!({"name": f.name, "type": f.data_type.to_string(), "required": f.required, "description": f.description})
    });
    json!({
        "version": contract.version.to_string(),
        "event_time": contract.fields[contract.event_time].name,
        "fact_id": contract.fact_id.iter().map(|i| &contract.fields[*i].name).collect::<Vec<_>>(),
        "fields": fields.collect::<Vec<_>>(),
    })
}

/// What facts brought besides the contract's fields, since the process began.
fn unknown_fields(unknown: &UnknownFields) -> Json {
    json!({
        "facts": unknown.facts, "fields": unknown.fields,
        "names": unknown.names, "others": unknown.others,
    })
}

fn label(label: &Label) -> Json {
    let source = &label.view.sources[0];
    let (_, keys) = label.keys();
    let matched = source.key_columns.iter().zip(keys);
    let matched: Map<String, Json> = matched
        .map(|(column, key)| (column.to_string(), json!(key.name)))
        .collect();
    json!({
        "contract": label.contract, "entity": label.entity, "match": matched,
        "type": label.data_type().to_string(), "horizon": Duration(label.horizon).to_string(),
        "early_negative": label.early_negative,
    })
}

fn feature_set(set: &FeatureSet) -> Json {
    let names = set.features.iter();
    let names = names.map(|f| &f.view.features[f.index].full_name);
    let context = set.context.iter();
    let context = context.map(|f| json!({"name": f.name, "type": f.data_type.to_string()}));
    let on_demand = set.on_demand.iter().map(|d| {
        json!({"name": d.full_name, "type": d.data_type.to_string(), "description": d.description})
    });
    json!({
        "features": names.collect::<Vec<_>>(),
        "context": context.collect::<Vec<_>>(),
        "on_demand": on_demand.collect::<Vec<_>>(),
    })
}
