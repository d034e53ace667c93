//! Which column each of a file's lists of categories belongs to.
//!
//! The lists stand in the order of the columns, but columns that training didn't use (`none`) may have one, too. A column's
//! list is taken where only one of them can be its own.

use std::collections::BTreeMap;

/// Categories of a column, with their codes.
pub(super) type Labels = BTreeMap<String, u32>;

/// Columns times lists that are tried against each other.
const PAIRS_MAX: usize = 1 << 22;

/// Whether a column's `feature_infos` lists codes of categories.
pub(super) fn is_category(info: &str) -> bool {
    info != "none" && !info.starts_with('[')
}

/// Lists by column.
pub(super) fn by_column(infos: &[&str], lists: Vec<Labels>) -> BTreeMap<usize, Labels> {
    // Columns that must have a list, and ones that may.
    let columns: Vec<usize> = (0..infos.len())
        .filter(|column| !infos[*column].starts_with('['))
        .collect();
    if columns.len().saturating_mul(lists.len() + 1) > PAIRS_MAX {
        return BTreeMap::new();
    }
    let must: Vec<bool> = columns.iter().map(|c| is_category(infos[*c])).collect();
    let fits = |place: usize, list: &Labels| {
        let codes = infos[columns[place]]
            .split(':')
            .filter_map(|c| c.parse::<i64>().ok());
        !must[place] || codes.max().unwrap_or(0) < list.len() as i64
    };
    // Whether the first columns can have the first lists, and the last ones the last lists.
    let (width, height) = (lists.len() + 1, columns.len() + 1);
    let mut front = vec![false; width * height];
    let mut back = vec![false; width * height];
    front[0] = true;
    back[width * height - 1] = true;
    for place in 0..columns.len() {
        for list in 0..width {
            let with = list > 0 && front[place * width + list - 1] && fits(place, &lists[list - 1]);
            front[(place + 1) * width + list] =
                with || (!must[place] && front[place * width + list]);
        }
    }
    for place in (0..columns.len()).rev() {
        for list in 0..width {
            let with = list < lists.len()
                && back[(place + 1) * width + list + 1]
                && fits(place, &lists[list]);
            back[place * width + list] = with || (!must[place] && back[(place + 1) * width + list]);
        }
    }
    let own = |place: usize| {
        let mut can = (0..lists.len()).filter(|list| {
            front[place * width + list]
                && back[(place + 1) * width + list + 1]
                && fits(place, &lists[*list])
        });
        let first = can.next();
        first.filter(|_| must[place] && can.next().is_none())
    };
    let found: Vec<Option<usize>> = (0..columns.len()).map(own).collect();
    let mut lists: Vec<Option<Labels>> = lists.into_iter().map(Some).collect();
    let pairs = columns.into_iter().zip(found);
    pairs
        .filter_map(|(column, list)| Some((column, lists[list?].take()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(size: u32) -> Labels {
        (0..size)
            .map(|code| (format!("{size}-{code}"), code))
            .collect()
    }

    /// Sizes of the lists that columns got.
    fn sizes(infos: &[&str], lists: &[u32]) -> Vec<(usize, usize)> {
        let lists = lists.iter().map(|size| list(*size)).collect();
        let found = by_column(infos, lists);
        found
            .into_iter()
            .map(|(column, labels)| (column, labels.len()))
            .collect()
    }

    #[test]
    fn lists_find_their_columns() {
        assert_eq!(
            sizes(&["[0:1]", "-1:0:1", "0:2:1"], &[2, 3]),
            [(1, 2), (2, 3)]
        );
        // The unused column has a list of its own, or none.
        assert_eq!(sizes(&["0:1", "none", "0:2"], &[2, 1, 3]), [(0, 2), (2, 3)]);
        assert_eq!(sizes(&["0:1", "none", "0:2"], &[2, 3]), [(0, 2), (2, 3)]);
        // Either may be the first column's; the last one's is known.
        assert_eq!(sizes(&["none", "0:1", "none", "0:2"], &[2, 4, 3]), [(3, 3)]);
        // A category with codes alone is one list too few.
        assert_eq!(sizes(&["0:1", "0:2"], &[3]), []);
        assert_eq!(sizes(&["0:5"], &[3]), []);
    }
}
