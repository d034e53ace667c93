//! Which media type a caller accepts an answer in.

use axum::http::{HeaderMap, header};
use headwater_schema::Problem;

/// The first of the caller's media types that is offered; the first of those offered where anything is accepted, or
/// nothing is said.
pub fn media_type(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Problem> {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let types = accepted
        .filter_map(|a| a.to_str().ok())
        .flat_map(|a| a.split(','));
    let mut refused = Vec::new();
    for wanted in types {
        let essence = wanted.split(';').next().unwrap_or_default().trim();
        let any = ["*/*", "application/*", ""].contains(&essence);
        let fits = |name: &&&str| any || name.eq_ignore_ascii_case(essence);
        if let Some(name) = offered.iter().find(fits) {
            return Ok(name);
        }
        refused.push(essence);
    }
    match offered.first() {
        Some(first) if refused.is_empty() => Ok(first),
        _ => Err(
            Problem::user("not-acceptable", "no such format is answered")
                .field("accept")
                .detail(refused.join(", "))
                .hint(format!("accept one of {}", offered.join(", "))),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        media_type(&headers, &["application/json", "text/csv"]).ok()
    }

    #[test]
    fn what_is_offered_and_accepted_is_answered() {
        for (accept, answered) in [
            ("*/*", Some("application/json")),
            ("text/html, TEXT/CSV;q=0.5", Some("text/csv")),
            ("text/csv, application/json", Some("text/csv")),
            ("text/html, application/*;q=0.1", Some("application/json")),
            ("text/html", None),
        ] {
            assert_eq!(accepted(accept), answered, "{accept}");
        }
        let nothing = media_type(&HeaderMap::new(), &["text/csv"]);
        assert_eq!(nothing.ok(), Some("text/csv"));
    }
}
