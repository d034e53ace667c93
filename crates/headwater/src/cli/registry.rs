//! `registry`: what is applied, since when, by whom, and what reads what.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use headwater::{DataFolder, Running, compile_applied, describe, read_registry};
use headwater_api::backend::RegistryQuery;
use headwater_features::{DefinitionKind, Direction, FOUND_MAX};
use headwater_schema::Problem;
use serde_json::Value as Json;

use super::{Context, Failure, print};

#[derive(Subcommand)]
pub enum RegistryVerb {
    /// List what is applied, all of it or of one kind.
    List {
        /// contracts, entities, views, feature_sets, labels or models.
        kind: Option<String>,
    },
    /// Show one definition with its history.
    Show(ShowArguments),
    /// Show what a contract, column, entity, view, feature, feature set, label or model feeds and is fed by.
    Lineage(LineageArguments),
    /// Find definitions, features and columns by their names, descriptions, owners and tags.
    Search {
        #[arg(required = true)]
        words: Vec<String>,
        /// How many to show.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
}

#[derive(Args)]
pub struct ShowArguments {
    /// contract, entity, view, feature_set, label or model.
    kind: String,
    name: String,
    /// As this version said.
    #[arg(long)]
    version: Option<u64>,
}

#[derive(Args)]
pub struct LineageArguments {
    /// As in departure.dep_delay, plane_delays.trend or feature_set:plane_context.
    of: String,
    /// Only what feeds it.
    #[arg(long, conflicts_with = "downstream")]
    upstream: bool,
    /// Only what it feeds.
    #[arg(long)]
    downstream: bool,
}

/// Answers from the data folder, or from a running server.
pub fn run(context: &Context, verb: RegistryVerb) -> Result<(), Failure> {
    match verb {
        RegistryVerb::List { kind } => {
            let query = match &kind {
                Some(kind) => RegistryQuery::Kind(DefinitionKind::parse(kind)?),
                None => RegistryQuery::All,
            };
            let reply = ask(context, &query)?;
            tell(context, &reply, || list(&reply, kind.as_deref()));
        }
        RegistryVerb::Show(arguments) => {
            let query = RegistryQuery::One {
                kind: DefinitionKind::parse(&arguments.kind)?,
                name: arguments.name,
                version: arguments.version,
            };
            let reply = ask(context, &query)?;
            tell(context, &reply, || show(&reply));
        }
        RegistryVerb::Lineage(arguments) => lineage(context, &arguments)?,
        RegistryVerb::Search { words, limit } => {
            let text = words.join(" ");
            let limit = limit.min(FOUND_MAX);
            let reply = ask(context, &RegistryQuery::Search { text, limit })?;
            tell(context, &reply, || found(&reply["found"]));
        }
    }
    Ok(())
}

fn tell(context: &Context, reply: &Json, show: impl FnOnce()) {
    if context.json {
        print::json(reply);
    } else {
        show();
    }
}

fn ask(context: &Context, query: &RegistryQuery) -> Result<Json, Failure> {
    if let Some(remote) = context.remote()? {
        let (path, parameters) = path_of(query);
        return Ok(remote.get(&path, &parameters)?);
    }
    let config = context.config()?;
    let folder = context.data_folder(&config);
    let registry = read_registry(&context.env, &DataFolder::new(&folder))?.ok_or_else(|| {
        Problem::user("nothing-applied", "no definitions have been applied yet")
            .detail(format!("the data folder is {}", folder.display()))
            .hint("run `headwater apply` first")
    })?;
    let catalog = compile_applied(&registry)?;
    Ok(describe(&registry, &catalog, &Running::nothing(), query)?)
}

/// Where a server answers a query.
fn path_of(query: &RegistryQuery) -> (String, Vec<(&'static str, String)>) {
    let none = Vec::new;
    match query {
        RegistryQuery::All => ("/v1/registry".into(), none()),
        RegistryQuery::Kind(kind) => (format!("/v1/registry/{}", kind.plural()), none()),
        RegistryQuery::One {
            kind,
            name,
            version,
        } => {
            let version = version.map(|v| ("version", v.to_string()));
            let path = format!("/v1/registry/{}/{name}", kind.plural());
            (path, version.into_iter().collect())
        }
        RegistryQuery::Search { text, limit } => (
            "/v1/registry/search".into(),
            vec![("q", text.clone()), ("limit", limit.to_string())],
        ),
        RegistryQuery::Lineage { of, direction } => {
            let direction = match direction {
                Direction::Downstream => "downstream",
                Direction::Upstream => "upstream",
            };
            let parameters = vec![("of", of.clone()), ("direction", direction.to_owned())];
            ("/v1/registry/lineage".into(), parameters)
        }
    }
}

fn text(json: &Json) -> String {
    match json {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(reply: &Json, kind: Option<&str>) {
    let kinds = DefinitionKind::ALL.into_iter().map(DefinitionKind::plural);
    let mut rows = Vec::new();
    let parts: Vec<(&str, &Json)> = match kind {
        Some(kind) => vec![(kind, reply)],
        None => kinds.map(|kind| (kind, &reply[kind])).collect(),
    };
    for (kind, items) in parts {
        for item in items.as_array().into_iter().flatten() {
            rows.push(vec![
                kind.to_owned(),
                text(&item["name"]),
                text(&item["definition_version"]),
                text(&item["owner"]),
                text(&item["applied_at"]),
                text(&item["description"]),
            ]);
        }
    }
    let headings = ["kind", "name", "version", "owner", "applied", "description"];
    print::table(&headings, &rows);
}

fn show(reply: &Json) {
    println!("{} {}", text(&reply["kind"]), text(&reply["name"]));
    for key in ["owner", "description", "tags", "file", "status", "entity"] {
        let value = &reply[key];
        if !value.is_null() && *value != Json::Array(Vec::new()) {
            println!("  {key:<12} {}", text(value));
        }
    }
    println!();
    let versions = reply["versions"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = versions
        .map(|v| {
            let hash = match v["dropped"] == true {
                true => "dropped".to_owned(),
                false => text(&v["definition_hash"]),
            };
            vec![text(&v["definition_version"]), text(&v["applied_at"]), hash]
        })
        .collect();
    print::table(&["version", "applied", "hash"], &rows);
    if !reply["document"].is_null() {
        println!();
        print::json(&reply["document"]);
    }
}

fn found(found: &Json) {
    let row = |item: &Json| {
        ["kind", "name", "owner", "description"]
            .map(|key| text(&item[key]))
            .to_vec()
    };
    let rows: Vec<Vec<String>> = found.as_array().into_iter().flatten().map(row).collect();
    print::table(&["kind", "name", "owner", "description"], &rows);
}

fn lineage(context: &Context, arguments: &LineageArguments) -> Result<(), Failure> {
    let mut told = serde_json::Map::new();
    for (direction, name, wanted) in [
        (Direction::Upstream, "upstream", !arguments.downstream),
        (Direction::Downstream, "downstream", !arguments.upstream),
    ] {
        if wanted {
            let of = arguments.of.clone();
            let reply = ask(context, &RegistryQuery::Lineage { of, direction })?;
            if !context.json {
                tree(&reply);
            }
            told.insert(name.to_owned(), reply);
        }
    }
    if context.json {
        print::json(&Json::Object(told));
    }
    Ok(())
}

/// Prints a walk as a tree; what has been shown already isn't shown below again.
fn tree(reply: &Json) {
    let upstream = reply["direction"] == "upstream";
    let (near, far) = if upstream {
        ("to", "from")
    } else {
        ("from", "to")
    };
    let mut next: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for edge in reply["edges"].as_array().into_iter().flatten() {
        let reached = (text(&edge[far]), text(&edge["role"]));
        next.entry(text(&edge[near])).or_default().push(reached);
    }
    let nodes = reply["nodes"].as_array().into_iter().flatten();
    let owners: BTreeMap<String, String> = nodes
        .filter(|n| !n["owner"].is_null())
        .map(|n| (text(&n["id"]), text(&n["owner"])))
        .collect();
    let of = text(&reply["of"]);
    println!("{} of {of}", text(&reply["direction"]));
    let starts = reply["nodes"].as_array().into_iter().flatten();
    // A view's or an entity's features begin the walk with it.
    let reached: BTreeSet<&String> = next.values().flatten().map(|(node, _)| node).collect();
    let mut seen = BTreeSet::from([of.clone()]);
    branch(&of, 1, &next, &owners, &mut seen);
    for start in starts.map(|n| text(&n["id"])) {
        if start != of && !reached.contains(&start) && seen.insert(start.clone()) {
            println!("  {}", named(&start, &owners));
            branch(&start, 2, &next, &owners, &mut seen);
        }
    }
}

fn branch(
    node: &str,
    depth: usize,
    next: &BTreeMap<String, Vec<(String, String)>>,
    owners: &BTreeMap<String, String>,
    seen: &mut BTreeSet<String>,
) {
    let mut roles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (reached, role) in next.get(node).into_iter().flatten() {
        roles.entry(reached).or_default().push(role);
    }
    for (reached, roles) in roles {
        let indent = "  ".repeat(depth);
        let again = !seen.insert(reached.to_owned());
        let below = again && next.contains_key(reached);
        let more = if below { " …" } else { "" };
        println!(
            "{indent}{}  [{}]{more}",
            named(reached, owners),
            roles.join(", ")
        );
        if !again {
            branch(reached, depth + 1, next, owners, seen);
        }
    }
}

fn named(node: &str, owners: &BTreeMap<String, String>) -> String {
    let (kind, name) = node.split_once(':').unwrap_or(("", node));
    let owner = owners.get(node).map(|owner| format!("  (owner: {owner})"));
    format!(
        "{} {name}{}",
        kind.replace('_', " "),
        owner.unwrap_or_default()
    )
}
