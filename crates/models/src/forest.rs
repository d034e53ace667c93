//! Trees as they are walked: eight bytes a node in most models, children side by side, leaves that lead to themselves.
//!
//! Every format's rule for going left or right is brought to one form when a model is loaded: a row is first turned into
//! small whole numbers, one for each thing that any test asks of it, and a test compares one of them with a number of its own. So
//! walking takes one comparison a step and no branch, for categories and missing values too. Scores of a row are added
//! tree by tree, in the file's order, whether the row comes alone or in a batch. `build` makes it from a format's own
//! trees, `encode` turns rows into numbers, `walk` goes down the trees, `shap` explains where it came to.

mod build;
mod encode;
mod shap;
mod walk;

pub(crate) use build::{Builder, Linear, SplitTree, Test, TreeNode};
use encode::Encoder;
pub(crate) use shap::Players;

/// Numbers with this absolute value or less are zero to LightGBM: the float nearest to 1e−35.
pub(crate) const ZERO_MAX: f64 = 1e-35f32 as f64;

/// A number of an encoded row, or one that tells where it stands: as narrow as a model allows.
trait Cell: Copy + PartialOrd + Default {
    /// What no cell is above.
    const TOP: Self;
    /// `number` fits, since whoever made the model looked.
    fn of(number: u32) -> Self;
    fn wide(self) -> u32;
}

impl Cell for u16 {
    const TOP: Self = Self::MAX;

    fn of(number: u32) -> Self {
        number as Self
    }

    fn wide(self) -> u32 {
        u32::from(self)
    }
}

impl Cell for u32 {
    const TOP: Self = Self::MAX;

    fn of(number: u32) -> Self {
        number
    }

    fn wide(self) -> u32 {
        self
    }
}

/// A split: to `child` where the row's cell at `place` is `rank` or less, to `child + 1` otherwise. A leaf has the top
/// rank and itself as a child, so that walking on stays there.
#[derive(Debug, Clone, Copy)]
struct Node<C> {
    /// In `nodes`.
    child: u32,
    place: C,
    rank: C,
}

impl Node<u16> {
    fn widened(self) -> Node<u32> {
        // The top of one width isn't the other's, but no cell of this model is above either.
        Node {
            child: self.child,
            place: self.place.wide(),
            rank: self.rank.wide(),
        }
    }
}

#[derive(Debug)]
enum Nodes {
    Narrow(Vec<Node<u16>>),
    /// More places, or more thresholds at one of them, than a narrow number can tell apart.
    Wide(Vec<Node<u32>>),
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
    depth: usize,
}

/// Where a walk begins, and for how long it goes on.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    first: u32,
    depth: u32,
    /// The tree, counted from the first of its block.
    tree: u32,
}

/// All trees of a model.
#[derive(Debug)]
pub(crate) struct Forest {
    encoder: Encoder,
    nodes: Nodes,
    /// By node; zero where there is no leaf.
    values: Vec<f64>,
    /// How much training data came by each node; empty where the file doesn't say.
    covers: Vec<f64>,
    /// Lines in leaves, by node; empty where no tree has any.
    linear: Vec<Option<Box<Linear>>>,
    trees: Vec<Tree>,
    /// Block by block of trees, the shallow ones of each first: walks side by side end together.
    starts: Vec<Start>,
    /// Scores of a row.
    scores: usize,
    /// Each leaf is one number, and a row has one score.
    one_number: bool,
    /// What the scores are before the first tree.
    base: Vec<f64>,
    /// Sums are rounded to floats after each tree, as XGBoost does.
    single: bool,
}

impl Forest {
    pub(crate) fn memory_bytes(&self) -> usize {
        let nodes = match &self.nodes {
            Nodes::Narrow(nodes) => size_of_val(nodes.as_slice()),
            Nodes::Wide(nodes) => size_of_val(nodes.as_slice()),
        };
        nodes
            + self.encoder.memory_bytes()
            + (self.values.len() + self.covers.len()) * size_of::<f64>()
            + self.linear.len() * size_of::<Option<Box<Linear>>>()
            + self.trees.len() * (size_of::<Tree>() + size_of::<Start>())
    }

    /// A node, as wide as any.
    fn node(&self, at: usize) -> Node<u32> {
        match &self.nodes {
            Nodes::Narrow(nodes) => nodes[at].widened(),
            Nodes::Wide(nodes) => nodes[at],
        }
    }

    pub(crate) fn has_covers(&self) -> bool {
        !self.covers.is_empty()
    }
}

#[cfg(test)]
mod tests;
