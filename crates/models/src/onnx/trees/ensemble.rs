//! The columns of numbers that an ensemble is in the file, taken apart tree by tree; refuses what aren't trees.

use std::collections::{BTreeMap, BTreeSet};

use headwater_schema::Problem;

use super::super::attributes::{Attributes, Kind};
use crate::forest::{Builder, Forest, SplitTree, Test, TreeNode};
use crate::limits::{LEAF_VALUES_MAX, NODES_MAX, SCORES_MAX, at_most};
use crate::load::{corrupt, unsupported};

/// What a node says, before its children are known to be there.
struct Nodes<'a> {
    ids: &'a [i64],
    columns: &'a [i64],
    modes: &'a [Vec<u8>],
    thresholds: Vec<f64>,
    if_true: &'a [i64],
    if_false: &'a [i64],
    /// Whether a missing value passes a test; empty for none.
    missing: &'a [i64],
}

/// Trees as the file has them: nodes by their place in the file, in order of the first node.
pub(super) struct Ensemble<'a> {
    nodes: Nodes<'a>,
    pub(super) trees: Vec<(i64, Vec<usize>)>,
    /// By node: scores that a leaf adds to, and weights.
    weights: BTreeMap<usize, Vec<(usize, f64)>>,
    /// Scores that some leaf adds to.
    pub(super) named: BTreeSet<usize>,
    /// A leaf has a weight below zero.
    pub(super) negative: bool,
    kind: Kind,
}

impl<'a> Ensemble<'a> {
    pub(super) fn read(
        attributes: Attributes<'a>,
        what: &str,
        scores: usize,
        kind: Kind,
    ) -> Result<Self, Problem> {
        at_most("scores", scores, SCORES_MAX)?;
        let (thresholds, exact) = attributes.numbers("nodes_values")?;
        let nodes = Nodes {
            ids: attributes.ints("nodes_nodeids"),
            columns: attributes.ints("nodes_featureids"),
            modes: attributes.bytes("nodes_modes"),
            thresholds,
            if_true: attributes.ints("nodes_truenodeids"),
            if_false: attributes.ints("nodes_falsenodeids"),
            missing: attributes.ints("nodes_missing_value_tracks_true"),
        };
        let of_trees = attributes.ints("nodes_treeids");
        let lengths = [
            nodes.ids.len(),
            nodes.columns.len(),
            nodes.modes.len(),
            nodes.thresholds.len(),
            nodes.if_true.len(),
            nodes.if_false.len(),
        ];
        let count = of_trees.len();
        at_most("nodes", count, NODES_MAX)?;
        let missing = nodes.missing.is_empty() || nodes.missing.len() == count;
        if count == 0 || lengths.iter().any(|n| *n != count) || !missing {
            return Err(corrupt(format!(
                "Its trees have {count} nodes and columns of {lengths:?}"
            )));
        }
        let mut places: BTreeMap<i64, usize> = BTreeMap::new();
        let mut trees: Vec<(i64, Vec<usize>)> = Vec::new();
        for (node, tree) in of_trees.iter().enumerate() {
            let place = *places.entry(*tree).or_insert(trees.len());
            if place == trees.len() {
                trees.push((*tree, Vec::new()));
            }
            trees[place].1.push(node);
        }
        let mut found = Self {
            nodes,
            trees,
            weights: BTreeMap::new(),
            named: BTreeSet::new(),
            negative: false,
            kind,
        };
        let exact = found.weigh(attributes, what, scores, of_trees)? || exact;
        if exact && kind != Kind::Double {
            return Err(unsupported(
                "Trees of doubles whose input is of another type",
            ));
        }
        Ok(found)
    }

    /// Gives leaves their weights; says whether these are doubles.
    fn weigh(
        &mut self,
        attributes: Attributes<'a>,
        what: &str,
        scores: usize,
        of_trees: &[i64],
    ) -> Result<bool, Problem> {
        let ids = |name: &str| attributes.ints(&format!("{what}_{name}"));
        let (trees, nodes, targets) = (ids("treeids"), ids("nodeids"), ids("ids"));
        let (weights, exact) = attributes.numbers(&format!("{what}_weights"))?;
        let lengths = [trees.len(), nodes.len(), targets.len()];
        if lengths.iter().any(|n| *n != weights.len()) {
            return Err(corrupt(format!(
                "Its leaves have {} weights and columns of {lengths:?}",
                weights.len()
            )));
        }
        let each = of_trees.iter().zip(self.nodes.ids).zip(0..);
        let places: BTreeMap<(i64, i64), usize> = each
            .map(|((tree, id), place)| ((*tree, *id), place))
            .collect();
        if places.len() != of_trees.len() {
            return Err(corrupt("Two nodes of one tree have the same id"));
        }
        for (index, weight) in weights.iter().enumerate() {
            let (tree, node) = (trees[index], nodes[index]);
            let place = places.get(&(tree, node)).copied();
            let place = place.filter(|place| self.nodes.modes[*place] == b"LEAF");
            let place = place.ok_or_else(|| {
                corrupt(format!(
                    "The leaf {node} of tree {tree}, which has a weight, isn't there"
                ))
            })?;
            let score = usize::try_from(targets[index]).ok().filter(|s| *s < scores);
            let score = score.ok_or_else(|| {
                corrupt(format!(
                    "A leaf adds to score {}, of {scores}",
                    targets[index]
                ))
            })?;
            let leaf = self.weights.entry(place).or_default();
            if leaf.iter().any(|(s, _)| *s == score) {
                return Err(corrupt(format!(
                    "The leaf {node} of tree {tree} adds to score {score} twice"
                )));
            }
            leaf.push((score, *weight));
            self.named.insert(score);
            self.negative |= *weight < 0.0;
        }
        Ok(exact)
    }

    /// Scores that every row has: all leaves of some tree add to them.
    pub(super) fn always(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for (_, nodes) in &self.trees {
            let leaves = nodes.iter().filter(|n| self.nodes.modes[**n] == b"LEAF");
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            for (score, _) in nodes.iter().filter_map(|n| self.weights.get(n)).flatten() {
                *counts.entry(*score).or_default() += 1;
            }
            let leaves = leaves.count();
            let all = counts.into_iter().filter(|(_, count)| *count == leaves);
            found.extend(all.map(|(score, _)| score));
        }
        found
    }

    pub(super) fn build(&self, columns: usize, scores: usize) -> Result<Forest, Problem> {
        let single = self.kind != Kind::Double;
        let mut builder = Builder::new(columns, vec![0.0; scores], single);
        for (tree, nodes) in &self.trees {
            let read = self.tree(nodes);
            let read = read.and_then(|tree| builder.push(tree));
            read.map_err(|problem| problem.field(format!("tree {tree}")))?;
        }
        Ok(builder.finish())
    }

    /// One tree, its root first.
    fn tree(&self, nodes: &[usize]) -> Result<SplitTree, Problem> {
        let of_id: BTreeMap<i64, usize> = nodes
            .iter()
            .map(|node| (self.nodes.ids[*node], *node))
            .collect();
        let is_leaf = |node: usize| self.nodes.modes[node] == b"LEAF";
        let children = |node: usize| [self.nodes.if_true[node], self.nodes.if_false[node]];
        let splits = nodes.iter().copied().filter(|node| !is_leaf(*node));
        let below: BTreeSet<i64> = splits.flat_map(children).collect();
        let mut roots = nodes
            .iter()
            .filter(|node| !below.contains(&self.nodes.ids[**node]));
        let (Some(root), None) = (roots.next(), roots.next()) else {
            return Err(corrupt("It doesn't have one root"));
        };
        let rest = nodes.iter().filter(|node| *node != root);
        let order: Vec<usize> = std::iter::once(root).chain(rest).copied().collect();
        let place: BTreeMap<usize, usize> = order.iter().copied().zip(0..).collect();
        let child = |id: i64| {
            let place = of_id.get(&id).and_then(|node| place.get(node));
            place
                .copied()
                .ok_or_else(|| corrupt(format!("Its node {id} isn't there")))
        };
        let leaves = || {
            order
                .iter()
                .filter_map(|node| self.weights.get(node))
                .flatten()
        };
        let first = leaves().map(|(score, _)| *score).min().unwrap_or(0);
        let last = leaves().map(|(score, _)| *score).max().unwrap_or(0);
        let width = last - first + 1;
        let count = order.iter().filter(|node| is_leaf(**node)).count();
        at_most("leaf values", count.saturating_mul(width), LEAF_VALUES_MAX)?;
        let mut tree = SplitTree {
            nodes: Vec::with_capacity(order.len()),
            covers: Vec::new(),
            score: first,
        };
        for node in order {
            tree.nodes.push(if is_leaf(node) {
                let mut values = vec![0.0; width];
                for (score, weight) in self.weights.get(&node).into_iter().flatten() {
                    values[score - first] = *weight;
                }
                TreeNode::Leaf {
                    values,
                    linear: None,
                }
            } else {
                let [if_true, if_false] = children(node);
                self.split(node, child(if_true)?, child(if_false)?)?
            });
        }
        Ok(tree)
    }

    /// A test that may pass or fail, as one that goes left or right.
    fn split(&self, node: usize, if_true: usize, if_false: usize) -> Result<TreeNode, Problem> {
        let threshold = self.nodes.thresholds[node];
        let missing_passes = self.nodes.missing.get(node).is_some_and(|m| *m != 0);
        let column = self.nodes.columns[node];
        let column =
            usize::try_from(column).map_err(|_| corrupt(format!("It looks at column {column}")))?;
        let below = |threshold: f64| {
            let fits = threshold > f64::NEG_INFINITY;
            let endless = || unsupported("A threshold that no number is below");
            fits.then(|| threshold.next_down()).ok_or_else(endless)
        };
        let at_most = |threshold: f64, missing_right: bool| Test::AtMost {
            threshold,
            missing_right,
            zero_missing: false,
        };
        if threshold.is_nan() {
            return Err(corrupt("It has a threshold that isn't a number"));
        }
        let mode = self.nodes.modes[node].as_slice();
        // The missing value differs from any number.
        let (test, pass_left) = match mode {
            b"BRANCH_LEQ" => (at_most(threshold, !missing_passes), true),
            b"BRANCH_LT" => (at_most(below(threshold)?, !missing_passes), true),
            b"BRANCH_GT" => (at_most(threshold, missing_passes), false),
            b"BRANCH_GTE" => (at_most(below(threshold)?, missing_passes), false),
            b"BRANCH_EQ" | b"BRANCH_NEQ" => {
                let equal = mode == b"BRANCH_EQ";
                let test = Test::Equal {
                    value: threshold,
                    member_right: true,
                    missing_member: equal && missing_passes,
                };
                (test, !equal)
            }
            _ => {
                let mode = String::from_utf8_lossy(mode);
                return Err(unsupported(format!("Nodes of the mode `{mode}`")));
            }
        };
        let (left, right) = if pass_left {
            (if_true, if_false)
        } else {
            (if_false, if_true)
        };
        Ok(TreeNode::Split {
            column,
            test,
            left,
            right,
        })
    }
}
