//! What each call of the OpenAPI document asks of its caller, made from the table that the server asks.

use axum::http::Method;
use serde_json::{Value, json};

use super::Paths;
use crate::access::{Access, find_call};

/// Both headers that a key comes in.
pub(super) fn schemes() -> Value {
    let of_key =
        "An API key, made by `headwater keys create`. A server that has no keys asks for none";
    json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": of_key},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": of_key}
    })
}

/// Says of every call which role its key needs; of open ones, that they need none.
pub(super) fn guard(paths: &mut Paths) {
    for (path, methods) in paths {
        let methods = methods.as_object_mut().into_iter().flatten();
        for (method, call) in methods {
            let method = Method::from_bytes(method.to_uppercase().as_bytes());
            let access = method.ok().and_then(|m| find_call(&m, path).access());
            call["security"] = match access {
                Some(Access::Open) => json!([]),
                Some(Access::Role(role)) => {
                    let roles = [role.as_str()];
                    // The empty one: without any key in force nobody needs one.
                    json!([{"bearer": roles}, {"key": roles}, {}])
                }
                // Closed to everyone; a test sees that there is none such.
                None => json!([{"bearer": ["admin"]}, {"key": ["admin"]}]),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::RULES;

    #[test]
    fn every_call_says_what_the_server_asks_of_its_caller() {
        let document = crate::openapi();
        let schemes = document["components"]["securitySchemes"].as_object();
        let schemes = schemes.unwrap();
        let mut seen = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, call) in methods.as_object().unwrap() {
                let is_it = |r: &&crate::access::Rule| {
                    r.path == path && r.method.eq_ignore_ascii_case(method)
                };
                let rule = RULES.iter().find(is_it).unwrap();
                let asked = call["security"].as_array().unwrap();
                seen += 1;
                let Access::Role(role) = rule.access else {
                    assert!(asked.is_empty(), "{method} {path}");
                    continue;
                };
                for scheme in schemes.keys() {
                    let wanted = json!({ scheme.as_str(): [role.as_str()] });
                    assert!(asked.contains(&wanted), "{method} {path}: {asked:?}");
                }
            }
        }
        assert!(seen > 30, "{seen}");
        assert_eq!(
            document.pointer("/paths/~1metrics/get/security/0/bearer/0"),
            Some(&json!("read"))
        );
    }
}
