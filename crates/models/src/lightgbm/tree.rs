//! One tree of a LightGBM model: splits name children at zero and above, and leaves as `−1 − leaf`.

use headwater_schema::Problem;

use super::text::Block;
use crate::forest::{Linear, SplitTree, Test, TreeNode, ZERO_MAX};
use crate::limits::{MEMBERS_MAX, NODES_MAX, at_most};
use crate::load::corrupt;

/// Bits of `decision_type`.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;

pub(super) fn read(block: &Block<'_>, score: usize) -> Result<SplitTree, Problem> {
    let leaves = block.number("num_leaves")?;
    at_most("nodes", leaves.saturating_mul(2), NODES_MAX)?;
    if leaves == 0 {
        return Err(corrupt("A tree has no leaves"));
    }
    let splits = leaves - 1;
    let columns: Vec<usize> = block.numbers("split_feature", splits)?;
    let left: Vec<i64> = block.numbers("left_child", splits)?;
    let right: Vec<i64> = block.numbers("right_child", splits)?;
    let values: Vec<f64> = block.numbers("leaf_value", leaves)?;
    let tests = tests(block, splits)?;
    let place = |child: i64| usize::try_from(child).unwrap_or_else(|_| splits + !child as usize);
    let mut tree = SplitTree {
        nodes: Vec::with_capacity(splits + leaves),
        covers: covers(block, splits, leaves)?,
        score,
    };
    for (at, test) in tests.into_iter().enumerate() {
        tree.nodes.push(TreeNode::Split {
            column: columns[at],
            test,
            left: place(left[at]),
            right: place(right[at]),
        });
    }
    let mut lines = lines(block, leaves)?;
    for (leaf, value) in values.into_iter().enumerate() {
        tree.nodes.push(TreeNode::Leaf {
            values: vec![value],
            linear: lines.get_mut(leaf).and_then(Option::take),
        });
    }
    Ok(tree)
}

/// Counts of rows. A tree without splits has none in the file, and needs none.
fn covers(block: &Block<'_>, splits: usize, leaves: usize) -> Result<Vec<f64>, Problem> {
    if splits == 0 {
        return Ok(vec![1.0]);
    }
    if !block.has("internal_count") || !block.has("leaf_count") {
        return Ok(Vec::new());
    }
    let mut counts: Vec<f64> = block.numbers("internal_count", splits)?;
    let of_leaves: Vec<f64> = block.numbers("leaf_count", leaves)?;
    counts.extend(of_leaves);
    Ok(counts)
}

fn tests(block: &Block<'_>, splits: usize) -> Result<Vec<Test>, Problem> {
    let thresholds: Vec<f64> = block.numbers("threshold", splits)?;
    let kinds: Vec<u8> = if block.has("decision_type") {
        block.numbers("decision_type", splits)?
    } else {
        vec![0; splits]
    };
    let bounds: Vec<usize> = block.all("cat_boundaries")?;
    let words: Vec<u32> = block.all("cat_threshold")?;
    let words_max = words.len();
    let (mut words_read, mut members) = (0, 0);
    let both = thresholds.into_iter().zip(kinds);
    both.map(|(threshold, kind)| {
        if kind & CATEGORICAL == 0 {
            return numeric(threshold, kind);
        }
        let set = threshold as usize;
        let words = match (bounds.get(set), bounds.get(set.saturating_add(1))) {
            (Some(from), Some(to)) => words.get(*from..*to),
            _ => None,
        };
        let words = words.ok_or_else(|| corrupt(format!("Its set {threshold} isn't there")))?;
        // A split has a set of its own: sets that overlap could say far more than the file holds.
        words_read += words.len();
        if words_read > words_max {
            return Err(corrupt("Its sets overlap"));
        }
        members += words.iter().map(|w| w.count_ones() as usize).sum::<usize>();
        at_most("categories in sets", members, MEMBERS_MAX)?;
        let codes = codes(words).collect();
        Ok(Test::InSet {
            codes,
            member_right: false,
            missing_right: true,
            invalid_right: true,
        })
    })
    .collect()
}

/// The codes whose bits are set.
fn codes(words: &[u32]) -> impl Iterator<Item = u32> {
    let words = words.iter().enumerate();
    words.flat_map(|(index, word)| {
        let bits = (0..u32::BITS).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| index as u32 * u32::BITS + bit)
    })
}

/// LightGBM takes what is nearly zero for zero, and NaN too unless NaN is what counts as missing. So does this test:
/// a threshold near zero is moved to where all of them stand on its side.
fn numeric(threshold: f64, kind: u8) -> Result<Test, Problem> {
    let snapped = if (-ZERO_MAX..0.0).contains(&threshold) {
        (-ZERO_MAX).next_down()
    } else if (0.0..ZERO_MAX).contains(&threshold) {
        ZERO_MAX
    } else {
        threshold
    };
    let default_right = kind & DEFAULT_LEFT == 0;
    let (missing_right, zero_missing) = match kind >> 2 & 3 {
        0 => (threshold < 0.0, false),
        1 => (default_right, true),
        2 => (default_right, false),
        _ => return Err(corrupt(format!("`decision_type` {kind} isn't known"))),
    };
    if threshold.is_nan() {
        return Err(corrupt("A threshold is NaN"));
    }
    Ok(Test::AtMost {
        threshold: snapped,
        missing_right,
        zero_missing,
    })
}

/// Lines in the leaves of a linear tree.
fn lines(block: &Block<'_>, leaves: usize) -> Result<Vec<Option<Linear>>, Problem> {
    if block.get("is_linear").is_none_or(|v| v.trim() == "0") {
        return Ok(Vec::new());
    }
    let intercepts: Vec<f64> = block.numbers("leaf_const", leaves)?;
    let counts: Vec<usize> = block.numbers("num_features", leaves)?;
    let all = counts.iter().fold(0usize, |a, b| a.saturating_add(*b));
    let columns: Vec<usize> = block.numbers("leaf_features", all)?;
    let coefficients: Vec<f64> = block.numbers("leaf_coeff", all)?;
    let mut terms = columns.into_iter().zip(coefficients);
    let both = intercepts.into_iter().zip(counts);
    Ok(both
        .map(|(intercept, count)| {
            Some(Linear {
                intercept,
                terms: terms.by_ref().take(count).collect(),
            })
        })
        .collect())
}
