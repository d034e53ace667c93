//! From a format's trees to the ones that are walked; refuses what isn't a tree.

use headwater_schema::Problem;

use super::{
    CATEGORY, EQUAL, Forest, INVALID_RIGHT, MEMBER_RIGHT, MISSING_MEMBER, MISSING_RIGHT, Node,
    SPECIAL, Tree, ZERO_MISSING,
};
use crate::limits::{LEAF_VALUES_MAX, NODES_MAX, TREE_DEPTH_MAX, TREES_MAX, at_most};
use crate::load::corrupt;

/// A rule for going left or right.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// Left where `value <= threshold`.
    AtMost {
        threshold: f64,
        missing_right: bool,
        zero_missing: bool,
    },
    /// Whether the value's whole part is in the set, whose bits are `words`.
    InSet {
        words: Vec<u32>,
        member_right: bool,
        missing_right: bool,
        invalid_right: bool,
    },
    /// Whether the value is this one; or missing, where that is to count as equal.
    Equal {
        value: f64,
        member_right: bool,
        missing_member: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum TreeNode {
    Split {
        column: usize,
        test: Test,
        left: usize,
        right: usize,
    },
    Leaf {
        /// One number for each score of the tree.
        values: Vec<f64>,
        linear: Option<Linear>,
    },
}

/// A line in a leaf: `intercept + Σ coefficient · value`; the leaf's own value where one of them is missing.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) intercept: f64,
    pub(crate) terms: Vec<(usize, f64)>,
}

/// A tree as a file gives it: nodes that name their children by index, the root first.
#[derive(Debug, Clone, Default)]
pub(crate) struct SplitTree {
    pub(crate) nodes: Vec<TreeNode>,
    /// By node, or empty.
    pub(crate) covers: Vec<f64>,
    /// The first score that it adds to.
    pub(crate) score: usize,
}

/// A set's bits.
pub(crate) fn set_of(members: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut words = Vec::new();
    for member in members {
        let word = (member / 32) as usize;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (member % 32);
    }
    words
}

pub(crate) struct Builder {
    forest: Forest,
    columns: usize,
}

impl Builder {
    /// For rows of `columns` numbers; scores begin at `base`.
    pub(crate) fn new(columns: usize, base: Vec<f64>, single: bool) -> Self {
        let forest = Forest {
            nodes: Vec::new(),
            values: Vec::new(),
            covers: Vec::new(),
            linear: Vec::new(),
            words: Vec::new(),
            sets: Vec::new(),
            trees: Vec::new(),
            twice: false,
            scores: base.len(),
            base,
            single,
        };
        Self { forest, columns }
    }

    /// Adds one more tree.
    pub(crate) fn push(&mut self, tree: SplitTree) -> Result<(), Problem> {
        self.add(&tree).map_err(|problem| {
            let field = format!("tree {}", self.forest.trees.len());
            problem.field(field)
        })
    }

    fn add(&mut self, tree: &SplitTree) -> Result<(), Problem> {
        let order = breadth_first(tree)?;
        let first = self.forest.nodes.len();
        at_most("trees", self.forest.trees.len() + 1, TREES_MAX)?;
        at_most("nodes", first + order.len(), NODES_MAX)?;
        let width = self.width(tree)?;
        let values = self.forest.values.len();
        at_most("leaf values", values + order.len() * width, LEAF_VALUES_MAX)?;
        self.forest.values.resize(values + order.len() * width, 0.0);
        if !self.forest.linear.is_empty() || tree.is_linear() {
            self.forest.linear.resize_with(first + order.len(), || None);
        }
        let plain = tree.nodes.iter().all(TreeNode::is_plain);
        let mut next = first as u32 + 1;
        for (at, &(node, _)) in order.iter().enumerate() {
            match &tree.nodes[node] {
                TreeNode::Split { column, test, .. } => {
                    let node = self.split(*column, test, next)?;
                    self.forest.nodes.push(node);
                    next += 2;
                }
                TreeNode::Leaf {
                    values: leaf,
                    linear,
                } => {
                    self.forest.nodes.push(Node {
                        threshold: f64::INFINITY,
                        child: (first + at) as u32,
                        column: 0,
                    });
                    let to = values + at * width;
                    self.forest.values[to..to + width].copy_from_slice(leaf);
                    if let Some(linear) = linear {
                        self.check_columns(linear.terms.iter().map(|(column, _)| *column))?;
                        self.forest.linear[first + at] = Some(Box::new(linear.clone()));
                    }
                }
            }
        }
        self.add_covers(tree, &order, first);
        self.forest.trees.push(Tree {
            first,
            end: first + order.len(),
            values,
            width,
            score: tree.score,
            plain,
            depth: order.last().map_or(0, |(_, depth)| *depth),
        });
        Ok(())
    }

    /// Covers of all trees, or of none.
    fn add_covers(&mut self, tree: &SplitTree, order: &[(usize, usize)], first: usize) {
        if tree.covers.len() != tree.nodes.len() || self.forest.covers.len() != first {
            self.forest.covers.clear();
            return;
        }
        let covers = order.iter().map(|(node, _)| tree.covers[*node]);
        self.forest.covers.extend(covers);
    }

    /// How many numbers each of its leaves has.
    fn width(&self, tree: &SplitTree) -> Result<usize, Problem> {
        let width = tree.leaf_width();
        let same = tree.nodes.iter().all(|node| match node {
            TreeNode::Leaf { values, .. } => values.len() == width,
            TreeNode::Split { .. } => true,
        });
        if !same || width == 0 || tree.score + width > self.forest.scores {
            return Err(corrupt("Its leaves don't fit the model's scores"));
        }
        Ok(width)
    }

    fn check_columns(&self, columns: impl IntoIterator<Item = usize>) -> Result<(), Problem> {
        match columns.into_iter().find(|c| *c >= self.columns) {
            None => Ok(()),
            Some(column) => Err(corrupt(format!(
                "It looks at column {column}; the model has {}",
                self.columns
            ))),
        }
    }

    fn split(&mut self, column: usize, test: &Test, child: u32) -> Result<Node, Problem> {
        self.check_columns([column])?;
        let flag = |yes: bool, flag: u32| if yes { flag } else { 0 };
        let (threshold, flags) = match test {
            Test::AtMost {
                threshold,
                missing_right,
                ..
            } if test.is_plain() => {
                self.forest.twice |= missing_right;
                let second = if *missing_right { self.columns } else { 0 };
                (*threshold, second as u32)
            }
            Test::AtMost {
                threshold,
                missing_right,
                zero_missing,
            } => (
                *threshold,
                flag(*missing_right, MISSING_RIGHT) | flag(*zero_missing, ZERO_MISSING) | SPECIAL,
            ),
            Test::InSet {
                words,
                member_right,
                missing_right,
                invalid_right,
            } => {
                let (set, begin) = (self.forest.sets.len(), self.forest.words.len());
                self.forest.words.extend_from_slice(words);
                self.forest.sets.push((begin, self.forest.words.len()));
                let flags = flag(*missing_right, MISSING_RIGHT)
                    | flag(*invalid_right, INVALID_RIGHT)
                    | flag(*member_right, MEMBER_RIGHT);
                (set as f64, flags | CATEGORY | SPECIAL)
            }
            Test::Equal {
                value,
                member_right,
                missing_member,
            } => (
                *value,
                flag(*member_right, MEMBER_RIGHT)
                    | flag(*missing_member, MISSING_MEMBER)
                    | EQUAL
                    | SPECIAL,
            ),
        };
        Ok(Node {
            threshold,
            child,
            column: column as u32 + flags,
        })
    }

    pub(crate) fn finish(mut self) -> Forest {
        self.forest.nodes.shrink_to_fit();
        self.forest.values.shrink_to_fit();
        self.forest
    }
}

/// Nodes level by level, so that siblings stand side by side, each with its depth. Refuses a node that is reached
/// twice, one that isn't there, and a tree that is too deep.
fn breadth_first(tree: &SplitTree) -> Result<Vec<(usize, usize)>, Problem> {
    let mut seen = vec![false; tree.nodes.len()];
    let mut order = Vec::with_capacity(tree.nodes.len());
    let mut reach = |node: usize, depth: usize, order: &mut Vec<(usize, usize)>| {
        match seen.get_mut(node) {
            None => return Err(corrupt(format!("Its node {node} isn't there"))),
            Some(true) => return Err(corrupt(format!("Its node {node} has two parents"))),
            Some(seen) => *seen = true,
        }
        at_most("splits on one path", depth, TREE_DEPTH_MAX)?;
        order.push((node, depth));
        Ok(())
    };
    reach(0, 0, &mut order)?;
    let mut at = 0;
    while let Some(&(node, depth)) = order.get(at) {
        if let TreeNode::Split { left, right, .. } = tree.nodes[node] {
            reach(left, depth + 1, &mut order)?;
            reach(right, depth + 1, &mut order)?;
        }
        at += 1;
    }
    Ok(order)
}

impl Test {
    /// Whether it is one comparison. A missing value that goes right is endless, and so above any other threshold.
    fn is_plain(&self) -> bool {
        match self {
            Self::AtMost {
                threshold,
                missing_right,
                zero_missing,
            } => !zero_missing && (!missing_right || *threshold < f64::INFINITY),
            Self::InSet { .. } | Self::Equal { .. } => false,
        }
    }
}

impl TreeNode {
    fn is_plain(&self) -> bool {
        match self {
            Self::Leaf { .. } => true,
            Self::Split { test, .. } => test.is_plain(),
        }
    }
}

impl SplitTree {
    /// Whether a leaf has a line.
    pub(crate) fn is_linear(&self) -> bool {
        let has = |node: &TreeNode| {
            matches!(
                node,
                TreeNode::Leaf {
                    linear: Some(_),
                    ..
                }
            )
        };
        self.nodes.iter().any(has)
    }

    /// Numbers of each leaf.
    pub(crate) fn leaf_width(&self) -> usize {
        let width = self.nodes.iter().find_map(|node| match node {
            TreeNode::Leaf { values, .. } => Some(values.len()),
            TreeNode::Split { .. } => None,
        });
        width.unwrap_or(0)
    }
}
