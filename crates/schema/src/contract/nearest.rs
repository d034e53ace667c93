//! Which of the known names a person probably meant.

/// The candidate that is fewest edits away from `name`, if that is near enough to be a slip.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(2);
    let name = name.to_lowercase();
    let edits = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        // `int` for `integer`: the end was left out.
        match name.len() >= 3 && candidate.starts_with(&name) {
            true => 1,
            false => distance(&name, &candidate),
        }
    };
    candidates
        .into_iter()
        .map(|candidate| (edits(candidate), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
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
}
