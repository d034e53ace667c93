//! Which of the known names a person probably meant.

/// Names that a hint lists; of more it says how many.
const LISTED_MAX: usize = 10;

/// The candidate that is fewest edits away from `name`, if that is near enough to be a slip.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(2);
    let candidates = candidates.into_iter().map(|c| (edits(name, c), c));
    candidates
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// What to hint where `name` is none of the candidates: the one that was probably meant, else some of
/// them, the nearest first.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = candidates.into_iter().collect();
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if known.is_empty() {
        return "there is none".to_owned();
    }
    let more = known.len().saturating_sub(LISTED_MAX);
    if more == 0 {
        return format!("there are: {}", known.join(", "));
    }
    known.sort_by_cached_key(|candidate| edits(name, candidate));
    format!(
        "there are: {} and {more} more",
        known[..LISTED_MAX].join(", ")
    )
}

fn edits(name: &str, candidate: &str) -> usize {
    let (name, candidate) = (name.to_lowercase(), candidate.to_lowercase());
    // `int` for `integer`: the end was left out.
    match name.len() >= 3 && candidate.starts_with(&name) {
        true => 1,
        false => distance(&name, &candidate),
    }
}

/// Insertions, deletions and replacements that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_only() {
        let names = ["headwater.eventTime", "headwater.factId", "tailnum"];
        assert_eq!(
            nearest("headwater.event_time", names),
            Some("headwater.eventTime")
        );
        assert_eq!(nearest("tailnm", names), Some("tailnum"));
        assert_eq!(nearest("origin", names), None);
        assert_eq!(nearest("int", ["string", "integer"]), Some("integer"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_hint_names_the_nearest_few() {
        assert_eq!(
            suggest("tailnm", ["origin", "tailnum"]),
            "did you mean `tailnum`?"
        );
        assert_eq!(suggest("x", ["bcde", "abcd"]), "there are: bcde, abcd");
        assert_eq!(suggest("x", []), "there is none");
        let many: Vec<String> = (0..500).map(|i| format!("feature_{i}_of_many")).collect();
        let hint = suggest("feature_77", many.iter().map(String::as_str));
        assert_eq!(hint, "did you mean `feature_77_of_many`?");
        let hint = suggest("f_123_of_m", many.iter().map(String::as_str));
        assert!(
            hint.ends_with(" and 490 more") && hint.len() < 250,
            "{hint}"
        );
        assert!(hint.contains("feature_123_of_many"), "{hint}");
    }
}
