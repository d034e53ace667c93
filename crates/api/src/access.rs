//! Which role opens which call: the one table that HTTP and gRPC ask.
//!
//! A call that isn't in the table is closed to everyone as soon as keys are in force, so a new route
//! needs a line here before anybody can use it. gRPC's calls are `POST /package.Service/Method`.

use axum::extract::MatchedPath;
use axum::http::{Method, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a key may be used for. A key holds one or several; `admin` holds them all.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read features, facts, the registry and metrics.
    Read,
    /// Send and retract facts.
    Write,
    /// Everything, also what changes definitions and mends facts.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes, and pages that are the same everywhere.
    Open,
    Role(Role),
}

const READ: Access = Access::Role(Role::Read);
const WRITE: Access = Access::Role(Role::Write);
const ADMIN: Access = Access::Role(Role::Admin);

/// A call, what it asks of its caller, and how metrics call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub method: &'static str,
    /// `{name}` stands for one segment of a path, `{*name}` for the rest.
    pub path: &'static str,
    pub access: Access,
    pub name: &'static str,
    /// Whether its body may pause for as long as it likes: a feed that bounds itself.
    pub feed: bool,
    /// Whether it may take as long as `limits.training_set_ms_max` says.
    pub long: bool,
    /// Whether it reads parameters from the URL; one that doesn't refuses them.
    pub parameters: bool,
}

impl Rule {
    /// The same, for a call that stays open.
    const fn feed(mut self) -> Self {
        self.feed = true;
        self
    }

    /// The same, for a call that is much work.
    const fn long(mut self) -> Self {
        self.long = true;
        self
    }

    /// The same, for a call that reads parameters from the URL.
    const fn parameters(mut self) -> Self {
        self.parameters = true;
        self
    }
}

const fn rule(
    method: &'static str,
    path: &'static str,
    access: Access,
    name: &'static str,
) -> Rule {
    Rule {
        method,
        path,
        access,
        name,
        feed: false,
        long: false,
        parameters: false,
    }
}

/// Every call. docs/security.md shows the table to people.
pub const RULES: &[Rule] = &[
    rule("GET", "/", Access::Open, "home"),
    rule("GET", "/health/live", Access::Open, "live"),
    rule("GET", "/health/ready", Access::Open, "ready"),
    rule("GET", "/openapi.json", Access::Open, "openapi"),
    rule("GET", "/metrics", READ, "metrics"),
    rule("POST", "/v1/facts/{contract}", WRITE, "facts_post").parameters(),
    rule("GET", "/v1/facts/{contract}", READ, "facts_get").parameters(),
    rule(
        "POST",
        "/v1/facts/{contract}/retract",
        WRITE,
        "facts_retract",
    ),
    rule(
        "GET",
        "/v1/facts/{contract}/quarantine",
        READ,
        "quarantine_get",
    )
    .parameters(),
    rule(
        "POST",
        "/v1/facts/{contract}/quarantine/replay",
        ADMIN,
        "quarantine_replay",
    )
    .parameters(),
    rule(
        "POST",
        "/v1/facts/{contract}/quarantine/repair",
        ADMIN,
        "quarantine_repair",
    )
    .parameters(),
    rule("POST", "/v1/facts/{contract}/stream", WRITE, "facts_feed")
        .feed()
        .parameters(),
    rule("POST", "/v1/features", READ, "features"),
    rule("POST", "/v1/training-sets", READ, "training_sets")
        .long()
        .parameters(),
    rule("POST", "/v1/query", READ, "query"),
    rule("POST", "/v1/outcomes", WRITE, "outcomes"),
    rule("GET", "/v1/models", READ, "models"),
    rule("GET", "/v1/models/{model}", READ, "models_one"),
    rule("POST", "/v1/models/{model}/predict", READ, "predict"),
    rule("POST", "/v1/models/{model}/bundle", READ, "bundle"),
    rule("GET", "/v1/models/{model}/predictions", READ, "predictions").parameters(),
    rule("POST", "/v1/models/{model}/score", READ, "score")
        .long()
        .parameters(),
    rule("POST", "/v1/models/{model}/versions", ADMIN, "models_add")
        .long()
        .parameters(),
    rule(
        "DELETE",
        "/v1/models/{model}/versions/{version}",
        ADMIN,
        "models_remove",
    ),
    rule(
        "POST",
        "/v1/models/{model}/promote",
        ADMIN,
        "models_promote",
    ),
    rule(
        "POST",
        "/v1/models/{model}/rollback",
        ADMIN,
        "models_rollback",
    ),
    rule("GET", "/v1/archive", READ, "archive_get"),
    rule("POST", "/v1/archive", ADMIN, "archive_post"),
    rule("GET", "/v1/audit", ADMIN, "audit").parameters(),
    rule("GET", "/v1/registry", READ, "registry"),
    rule("GET", "/v1/registry/search", READ, "registry_search").parameters(),
    rule("GET", "/v1/registry/lineage", READ, "registry_lineage").parameters(),
    rule("POST", "/v1/registry/plan", READ, "registry_plan"),
    rule("POST", "/v1/registry/apply", ADMIN, "registry_apply"),
    rule("POST", "/v1/registry/backfill", ADMIN, "registry_backfill"),
    rule("GET", "/v1/registry/{kind}", READ, "registry_kind"),
    rule("GET", "/v1/registry/{kind}/{name}", READ, "registry_one").parameters(),
    rule("POST", "/get-online-features", READ, "feast_features"),
    rule("POST", "/push", WRITE, "feast_push"),
    rule("POST", "/write-to-online-store", WRITE, "feast_write"),
    rule("GET", "/health", Access::Open, "feast_health"),
    rule(
        "POST",
        "/chronon/v1/features/groupby/{name}",
        READ,
        "chronon_groupby",
    ),
    rule(
        "POST",
        "/chronon/v1/features/join/{name}",
        READ,
        "chronon_join",
    ),
    rule("GET", "/chronon/ping", Access::Open, "chronon_ping"),
    rule("GET", "/v2", Access::Open, "oip_server"),
    rule("GET", "/v2/health/live", Access::Open, "oip_live"),
    rule("GET", "/v2/health/ready", Access::Open, "oip_ready"),
    rule("GET", "/v2/models", READ, "oip_models"),
    rule("GET", "/v2/models/stats", READ, "oip_stats"),
    rule("GET", "/v2/models/{model}", READ, "oip_model"),
    rule("GET", "/v2/models/{model}/ready", READ, "oip_model_ready"),
    rule("GET", "/v2/models/{model}/config", READ, "oip_model_config"),
    rule("GET", "/v2/models/{model}/stats", READ, "oip_model_stats"),
    rule("POST", "/v2/models/{model}/infer", READ, "oip_infer"),
    rule(
        "GET",
        "/v2/models/{model}/versions/{version}",
        READ,
        "oip_version",
    ),
    rule(
        "GET",
        "/v2/models/{model}/versions/{version}/ready",
        READ,
        "oip_version_ready",
    ),
    rule(
        "GET",
        "/v2/models/{model}/versions/{version}/config",
        READ,
        "oip_version_config",
    ),
    rule(
        "GET",
        "/v2/models/{model}/versions/{version}/stats",
        READ,
        "oip_version_stats",
    ),
    rule(
        "POST",
        "/v2/models/{model}/versions/{version}/infer",
        READ,
        "oip_version_infer",
    ),
    rule("POST", "/v2/repository/index", READ, "oip_index"),
    rule(
        "POST",
        "/v2/repository/models/{model}/load",
        ADMIN,
        "oip_load",
    ),
    rule(
        "POST",
        "/v2/repository/models/{model}/unload",
        ADMIN,
        "oip_unload",
    ),
    rule("POST", "/headwater.v1.Facts/Append", WRITE, "grpc_append"),
    rule("POST", "/headwater.v1.Facts/Retract", WRITE, "grpc_retract"),
    rule("POST", "/headwater.v1.Facts/Feed", WRITE, "grpc_feed").feed(),
    rule("POST", "/headwater.v1.Features/Read", READ, "grpc_features"),
    rule("POST", "/headwater.v1.Models/Predict", READ, "grpc_predict"),
    rule(
        "POST",
        "/headwater.v1.Models/Outcomes",
        WRITE,
        "grpc_outcomes",
    ),
    rule(
        "POST",
        "/feast.serving.ServingService/GetFeastServingInfo",
        READ,
        "grpc_feast_info",
    ),
    rule(
        "POST",
        "/feast.serving.ServingService/GetOnlineFeatures",
        READ,
        "grpc_feast_features",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ServerLive",
        Access::Open,
        "grpc_oip_live",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ServerReady",
        Access::Open,
        "grpc_oip_ready",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ServerMetadata",
        Access::Open,
        "grpc_oip_server",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ModelReady",
        READ,
        "grpc_oip_model_ready",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ModelMetadata",
        READ,
        "grpc_oip_model",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ModelInfer",
        READ,
        "grpc_oip_infer",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ModelStreamInfer",
        READ,
        "grpc_oip_stream",
    )
    .feed(),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ModelConfig",
        READ,
        "grpc_oip_config",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/ModelStatistics",
        READ,
        "grpc_oip_stats",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/RepositoryIndex",
        READ,
        "grpc_oip_index",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        ADMIN,
        "grpc_oip_load",
    ),
    rule(
        "POST",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        ADMIN,
        "grpc_oip_unload",
    ),
];

/// What the table says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The rule at this place of the table.
    Rule(usize),
    /// The path is known, the method isn't.
    OtherMethod,
    Nothing,
}

impl Found {
    pub(crate) fn rule(self) -> Option<&'static Rule> {
        match self {
            Self::Rule(index) => RULES.get(index),
            Self::OtherMethod | Self::Nothing => None,
        }
    }

    /// What the call asks of its caller; nothing where the table doesn't know it.
    pub(crate) fn access(self) -> Option<Access> {
        self.rule().map(|rule| rule.access)
    }
}

/// Looks a request up, by the template that the router has matched, else by its path.
pub(crate) fn find<B>(request: &Request<B>) -> Found {
    let matched = request.extensions().get::<MatchedPath>();
    let path = matched.map_or(request.uri().path(), MatchedPath::as_str);
    find_call(request.method(), path)
}

/// Looks a call up by its path, or its path's template.
pub(crate) fn find_call(method: &Method, path: &str) -> Found {
    let method = match method.as_str() {
        "HEAD" => "GET",
        method => method,
    };
    let exact = RULES.iter().any(|rule| rule.path == path);
    let mut known = false;
    for (index, rule) in RULES.iter().enumerate() {
        let is_here = match exact {
            true => rule.path == path,
            false => matches(rule.path, path),
        };
        if is_here {
            known = true;
            if rule.method == method {
                return Found::Rule(index);
            }
        }
    }
    match known {
        true => Found::OtherMethod,
        false => Found::Nothing,
    }
}

fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in template.split('/') {
        if wanted.starts_with("{*") {
            return segments.next().is_some();
        }
        match segments.next() {
            Some(given) if wanted.starts_with('{') && !given.is_empty() => {}
            Some(given) if given == wanted => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_with_parameters_in_the_url_are_those_that_the_document_gives_some() {
        let document = crate::openapi::openapi();
        for rule in RULES.iter().filter(|r| r.path.starts_with("/v1/")) {
            let method = rule.method.to_ascii_lowercase();
            let call = &document["paths"][rule.path][&method];
            assert!(
                call.is_object(),
                "{} {} isn't described",
                rule.method,
                rule.path
            );
            let parameters = call["parameters"].as_array().into_iter().flatten();
            let documented = parameters.filter(|p| p["in"] == "query").count() > 0;
            assert_eq!(documented, rule.parameters, "{} {}", rule.method, rule.path);
        }
    }

    #[test]
    fn a_call_is_found_by_its_path_and_by_its_template() {
        let find = |method: &str, path: &str| find_call(&method.parse().unwrap(), path);
        let access = |method: &str, path: &str| find(method, path).access();
        assert_eq!(access("POST", "/v1/facts/purchase"), Some(WRITE));
        assert_eq!(access("POST", "/v1/facts/{contract}"), Some(WRITE));
        assert_eq!(access("HEAD", "/v1/facts/purchase"), Some(READ));
        assert_eq!(find("DELETE", "/v1/facts/purchase"), Found::OtherMethod);
        assert_eq!(find("POST", "/health/live"), Found::OtherMethod);
        for path in [
            "/v1/facts",
            "/v1/facts/",
            "/v1/facts/a/b",
            "/health/live/",
            "//health/live",
            "/healthy",
            "",
            "*",
        ] {
            assert_eq!(find("GET", path), Found::Nothing, "{path}");
        }
    }

    /// Every path that is given to the router or described to clients has its rules, so that none
    /// can be forgotten.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of source files")]
    fn every_route_has_a_role() {
        let mut paths: Vec<String> = Vec::new();
        for source in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
            let path = source.unwrap().path();
            if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                // Assembled, so that this line isn't taken for a route.
                let calls = text.replace(concat!(".route_", "service("), concat!(".", "route("));
                let routes = calls.split(concat!(".", "route(")).skip(1);
                let literal = |r: &str| {
                    Some(
                        r.trim_start()
                            .strip_prefix('"')?
                            .split_once('"')?
                            .0
                            .to_owned(),
                    )
                };
                paths.extend(routes.filter_map(literal));
            }
        }
        assert!(paths.len() >= 10, "{paths:?}");
        for path in &paths {
            let known = RULES.iter().any(|rule| rule.path == path);
            assert!(known, "no role opens {path}: add it to `RULES`");
        }
        let described = crate::openapi();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                let known = RULES.iter().any(|r| r.method == method && r.path == path);
                assert!(known, "no role opens {method} {path}: add it to `RULES`");
            }
        }
        let mut names = std::collections::BTreeSet::new();
        for Rule {
            method, path, name, ..
        } in RULES
        {
            assert!(names.insert(name), "two calls are named {name}");
            let pointer = format!(
                "/paths/{}/{}",
                path.replace('/', "~1"),
                method.to_lowercase()
            );
            let grpc = path
                .split('/')
                .nth(1)
                .is_some_and(|s| s.contains('.') && s != "openapi.json");
            assert!(
                grpc || described.pointer(&pointer).is_some(),
                "{method} {path} isn't described"
            );
        }
    }
}
