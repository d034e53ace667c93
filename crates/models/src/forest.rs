//! Trees as they are walked: sixteen bytes a node, children side by side, leaves that lead to themselves.
//!
//! Every format's rule for going left or right is brought to one form when a model is loaded, so that walking most trees
//! takes one comparison of doubles a step and no branch. Scores of a row are added tree by tree, in the file's order, whether the row
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
/// What isn't a category (below zero, too large) goes right.
const INVALID_RIGHT: u32 = 1 << 25;
/// A category of the set goes right.
const MEMBER_RIGHT: u32 = 1 << 26;
/// Zero counts as missing.
const ZERO_MISSING: u32 = 1 << 27;
/// `threshold` is a set's number, and the test is whether the value is in it.
const CATEGORY: u32 = 1 << 28;
/// The test is whether the value equals `threshold`.
const EQUAL: u32 = 1 << 29;
/// The test isn't one comparison.
const SPECIAL: u32 = 1 << 30;

/// A split: left where `value <= threshold`, at `child`; right, at `child + 1`, otherwise. A leaf has an endless
/// threshold and itself as a child, so that walking on stays there.
#[derive(Debug, Clone, Copy)]
struct Node {
    threshold: f64,
    /// In `nodes`.
    child: u32,
    /// The column, or the number of columns more where a missing value goes right; with flags where the test is special.
    column: u32,
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
    /// All its tests are comparisons.
    plain: bool,
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
    /// Words of all sets, and where each begins and ends.
    words: Vec<u32>,
    sets: Vec<(usize, usize)>,
    trees: Vec<Tree>,
    /// A node looks at a column's second place.
    twice: bool,
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
