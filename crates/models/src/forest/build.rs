//! From a format's trees to the ones that are walked; refuses what isn't a tree.

use headwater_schema::Problem;

use super::encode::Questions;
use super::walk::BLOCK;
use super::{Cell, Forest, Node, Nodes, Start, Tree};
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
    /// Whether the value's whole part is one of the set's codes, which are in order.
    InSet {
        codes: Vec<u32>,
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

/// A node whose rank isn't known yet: it depends on the thresholds of all trees.
#[derive(Debug, Clone, Copy)]
struct Draft {
    child: u32,
    place: u32,
    outcome: Outcome,
}

/// When a walk goes to the second child.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// Never: a leaf.
    Leaf,
    /// Where a number is above this.
    Above(f64),
    /// Where the answer is yes.
    Yes,
}

pub(crate) struct Builder {
    drafts: Vec<Draft>,
    questions: Questions,
    values: Vec<f64>,
    covers: Vec<f64>,
    linear: Vec<Option<Box<Linear>>>,
    trees: Vec<Tree>,
    base: Vec<f64>,
    single: bool,
    columns: usize,
}

impl Builder {
    /// For rows of `columns` numbers; scores begin at `base`.
    pub(crate) fn new(columns: usize, base: Vec<f64>, single: bool) -> Self {
        Self {
            drafts: Vec::new(),
            questions: Questions::default(),
            values: Vec::new(),
            covers: Vec::new(),
            linear: Vec::new(),
            trees: Vec::new(),
            base,
            single,
            columns,
        }
    }

    /// Adds one more tree.
    pub(crate) fn push(&mut self, tree: SplitTree) -> Result<(), Problem> {
        self.add(&tree).map_err(|problem| {
            let field = format!("tree {}", self.trees.len());
            problem.field(field)
        })
    }

    fn add(&mut self, tree: &SplitTree) -> Result<(), Problem> {
        let order = breadth_first(tree)?;
        let first = self.drafts.len();
        at_most("trees", self.trees.len() + 1, TREES_MAX)?;
        at_most("nodes", first + order.len(), NODES_MAX)?;
        let width = self.width(tree)?;
        let values = self.values.len();
        at_most("leaf values", values + order.len() * width, LEAF_VALUES_MAX)?;
        self.values.resize(values + order.len() * width, 0.0);
        if !self.linear.is_empty() || tree.is_linear() {
            self.linear.resize_with(first + order.len(), || None);
        }
        let mut next = first as u32 + 1;
        for (at, &(node, _)) in order.iter().enumerate() {
            match &tree.nodes[node] {
                TreeNode::Split { column, test, .. } => {
                    let draft = self.split(*column, test, next)?;
                    self.drafts.push(draft);
                    next += 2;
                }
                TreeNode::Leaf {
                    values: leaf,
                    linear,
                } => {
                    self.drafts.push(Draft {
                        child: (first + at) as u32,
                        place: 0,
                        outcome: Outcome::Leaf,
                    });
                    let to = values + at * width;
                    self.values[to..to + width].copy_from_slice(leaf);
                    if let Some(linear) = linear {
                        self.check_columns(linear.terms.iter().map(|(column, _)| *column))?;
                        self.linear[first + at] = Some(Box::new(linear.clone()));
                    }
                }
            }
        }
        self.add_covers(tree, &order, first);
        self.trees.push(Tree {
            first,
            end: first + order.len(),
            values,
            width,
            score: tree.score,
            depth: order.last().map_or(0, |(_, depth)| *depth),
        });
        Ok(())
    }

    /// Covers of all trees, or of none.
    fn add_covers(&mut self, tree: &SplitTree, order: &[(usize, usize)], first: usize) {
        if tree.covers.len() != tree.nodes.len() || self.covers.len() != first {
            self.covers.clear();
            return;
        }
        let covers = order.iter().map(|(node, _)| tree.covers[*node]);
        self.covers.extend(covers);
    }

    /// How many numbers each of its leaves has.
    fn width(&self, tree: &SplitTree) -> Result<usize, Problem> {
        let width = tree.leaf_width();
        let same = tree.nodes.iter().all(|node| match node {
            TreeNode::Leaf { values, .. } => values.len() == width,
            TreeNode::Split { .. } => true,
        });
        if !same || width == 0 || tree.score + width > self.base.len() {
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

    fn split(&mut self, column: usize, test: &Test, child: u32) -> Result<Draft, Problem> {
        self.check_columns([column])?;
        let outcome = match test {
            Test::AtMost { threshold, .. } if threshold.is_nan() => {
                return Err(corrupt("A threshold is NaN"));
            }
            Test::AtMost { threshold, .. } => Outcome::Above(*threshold),
            Test::InSet { .. } | Test::Equal { .. } => Outcome::Yes,
        };
        Ok(Draft {
            child,
            place: self.questions.place(column as u32, test)?,
            outcome,
        })
    }

    pub(crate) fn finish(self) -> Forest {
        let thresholds = self.thresholds();
        let most = thresholds.iter().map(Vec::len).max().unwrap_or(0);
        let narrow = most.max(thresholds.len()) < usize::from(u16::MAX);
        self.finish_with(&thresholds, narrow)
    }

    /// What numbers are compared with at each place: each threshold once, in order.
    pub(super) fn thresholds(&self) -> Vec<Vec<f64>> {
        let mut thresholds = vec![Vec::new(); self.questions.places()];
        for draft in &self.drafts {
            if let Outcome::Above(threshold) = draft.outcome {
                thresholds[draft.place as usize].push(threshold);
            }
        }
        for thresholds in &mut thresholds {
            thresholds.sort_unstable_by(f64::total_cmp);
            thresholds.dedup();
        }
        thresholds
    }

    pub(super) fn finish_with(mut self, thresholds: &[Vec<f64>], narrow: bool) -> Forest {
        self.values.shrink_to_fit();
        self.covers.shrink_to_fit();
        self.linear.shrink_to_fit();
        self.trees.shrink_to_fit();
        let nodes = if narrow {
            Nodes::Narrow(ranked(&self.drafts, thresholds))
        } else {
            Nodes::Wide(ranked(&self.drafts, thresholds))
        };
        let scores = self.base.len();
        Forest {
            encoder: self.questions.encoder(thresholds, self.single),
            nodes,
            one_number: scores == 1 && self.linear.is_empty(),
            starts: self.trees.chunks(BLOCK).flat_map(starts).collect(),
            values: self.values,
            covers: self.covers,
            linear: self.linear,
            trees: self.trees,
            scores,
            base: self.base,
            single: self.single,
        }
    }
}

/// Nodes with the places of their thresholds among all that are asked for.
fn ranked<C: Cell>(drafts: &[Draft], thresholds: &[Vec<f64>]) -> Vec<Node<C>> {
    let rank = |draft: &Draft| match draft.outcome {
        Outcome::Leaf => C::TOP,
        Outcome::Yes => C::of(0),
        Outcome::Above(threshold) => {
            let all = &thresholds[draft.place as usize];
            C::of(all.partition_point(|t| *t < threshold) as u32)
        }
    };
    let node = |draft: &Draft| Node {
        child: draft.child,
        place: C::of(draft.place),
        rank: rank(draft),
    };
    drafts.iter().map(node).collect()
}

/// Where walks through a block of trees begin, the shortest first.
fn starts(trees: &[Tree]) -> Vec<Start> {
    let start = |(index, tree): (usize, &Tree)| Start {
        first: tree.first as u32,
        depth: tree.depth as u32,
        tree: index as u32,
    };
    let mut starts: Vec<Start> = trees.iter().enumerate().map(start).collect();
    starts.sort_by_key(|start| start.depth);
    starts
}

/// Nodes level by level, so that siblings stand side by side, the one where the test says yes second; each with its depth. Refuses a node that is reached
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
        if let TreeNode::Split {
            left, right, test, ..
        } = &tree.nodes[node]
        {
            let (first, second) = if test.yes_is_right() {
                (left, right)
            } else {
                (right, left)
            };
            reach(*first, depth + 1, &mut order)?;
            reach(*second, depth + 1, &mut order)?;
        }
        at += 1;
    }
    Ok(order)
}

impl Test {
    /// Whether a value that is above the threshold, in the set or equal goes right.
    fn yes_is_right(&self) -> bool {
        match self {
            Self::AtMost { .. } => true,
            Self::InSet { member_right, .. } | Self::Equal { member_right, .. } => *member_right,
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
