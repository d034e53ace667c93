//! Trees as they are walked: sixteen bytes a node, children side by side, leaves that lead to themselves.
//!
//! Every format's rule for going left or right is brought to one form when a model is loaded, so that walking most trees
//! takes one comparison of doubles a step, or a look at one bit of a set, and no branch. Scores of a row are added tree by tree, in the file's order, whether the row
//! comes alone or in a batch. `build` makes it from a format's own trees, `shap` explains it.

mod build;
mod shap;
mod walk;

pub(crate) use build::{Builder, Linear, SplitTree, Test, TreeNode, set_of};
pub(crate) use shap::Players;

/// Numbers with this absolute value or less are zero to LightGBM: the float nearest to 1e−35.
pub(crate) const ZERO_MAX: f64 = 1e-35f32 as f64;

/// Which column a node looks at; what is above are flags.
const COLUMN: u32 = (1 << 24) - 1;
/// A missing value goes right.
const MISSING_RIGHT: u32 = 1 << 24;
/// With `EQUAL`: a missing value counts as equal.
const MISSING_MEMBER: u32 = MISSING_RIGHT;
/// With `EQUAL`: an equal value goes right.
const MEMBER_RIGHT: u32 = 1 << 25;
/// Zero counts as missing.
const ZERO_MISSING: u32 = 1 << 26;
/// The test is whether the value equals `threshold`.
const EQUAL: u32 = 1 << 27;
/// The test is whether a category's place in a set has a bit: see [`Set`].
const IN_SET: u32 = 1 << IN_SET_PLACE;
const IN_SET_PLACE: u32 = 28;
/// The test is none of one comparison or one bit.
const SPECIAL: u32 = 1 << 29;

/// Which tests a tree has: comparisons alone, sets too, any.
const COMPARISONS: u8 = 0;
const SETS: u8 = 1;
const ANY: u8 = 2;

/// A split: left where `value <= threshold`, at `child`; right, at `child + 1`, otherwise. A leaf has an endless
/// threshold and itself as a child, so that walking on stays there.
#[derive(Debug, Clone, Copy)]
struct Node {
    threshold: f64,
    /// In `nodes`.
    child: u32,
    /// The column's first place in a widened row: its value. Its second, as many columns on, where a missing value goes right;
    /// its third, the place of its category in a set. With flags where the test isn't one comparison.
    column: u32,
}

/// Which categories go right: a bit for each, after those of a missing value and of what isn't a category, and one at
/// the end for all that lie beyond. In a node it stands where a threshold otherwise does.
#[derive(Debug, Clone, Copy)]
struct Set {
    /// Its first word, in `words`.
    begin: u32,
    /// Its last bit.
    last: u32,
}

impl Set {
    const MISSING: u32 = 0;
    const INVALID: u32 = 1;
    const CATEGORIES: u32 = 2;

    fn as_threshold(self) -> f64 {
        f64::from_bits(u64::from(self.last) << 32 | u64::from(self.begin))
    }

    fn of(node: &Node) -> Self {
        let bits = node.threshold.to_bits();
        Self {
            begin: bits as u32,
            last: (bits >> 32) as u32,
        }
    }

    /// The place of a value's category, as a row has it: in the low half of a number near 1.
    fn place(value: f64, single: bool) -> f64 {
        // A fraction is cut off, so that −0.5 is 0; XGBoost rounds to floats first, and takes nothing below zero.
        let (value, is_category) = if single {
            let value = f64::from(value as f32);
            (value, (0.0..16_777_216.0).contains(&value))
        } else {
            (value, value > -1.0 && value < 2_147_483_648.0)
        };
        let place = if value.is_nan() {
            Self::MISSING
        } else if is_category {
            Self::CATEGORIES + value as u32
        } else {
            Self::INVALID
        };
        f64::from_bits(1f64.to_bits() | u64::from(place))
    }
}

#[derive(Debug, Clone, Copy)]
struct Tree {
    /// Its nodes, in `nodes`, `covers` and `linear`.
    first: usize,
    end: usize,
    /// Its leaves' numbers, `width` for each node, in `values`.
    values: usize,
    width: usize,
    /// The first score that it adds to.
    score: usize,
    /// `COMPARISONS`, `SETS` or `ANY`.
    tests: u8,
    depth: usize,
}

/// All trees of a model.
#[derive(Debug)]
pub(crate) struct Forest {
    nodes: Vec<Node>,
    /// By node; zero where there is no leaf.
    values: Vec<f64>,
    /// How much training data came by each node; empty where the file doesn't say.
    covers: Vec<f64>,
    /// Lines in leaves, by node; empty where no tree has any.
    linear: Vec<Option<Box<Linear>>>,
    /// Words of all sets; never empty.
    words: Vec<u32>,
    trees: Vec<Tree>,
    /// A node looks at a column's second place.
    twice: bool,
    /// Columns whose third place a node looks at, in order.
    categories: Vec<u32>,
    /// Scores of a row.
    scores: usize,
    /// What the scores are before the first tree.
    base: Vec<f64>,
    /// Sums are rounded to floats after each tree, as XGBoost does.
    single: bool,
}

impl Forest {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
            + (self.values.len() + self.covers.len()) * size_of::<f64>()
            + self.linear.len() * size_of::<Option<Box<Linear>>>()
            + self.words.len() * size_of::<u32>()
            + self.trees.len() * size_of::<Tree>()
    }

    pub(crate) fn has_covers(&self) -> bool {
        !self.covers.is_empty()
    }
}

#[cfg(test)]
mod tests;
