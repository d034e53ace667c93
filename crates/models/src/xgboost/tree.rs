//! One tree of an XGBoost model: columns of numbers, by node.

use std::collections::BTreeMap;

use headwater_schema::Problem;

use crate::document::Document;
use crate::forest::{SplitTree, Test, TreeNode};
use crate::limits::{MEMBERS_MAX, NODES_MAX, at_most};
use crate::load::corrupt;
use crate::single;

/// Categories are whole numbers below it: what a float can hold.
const CATEGORY_MAX: usize = 1 << 24;

/// Leaves are multiplied by `weight`, as dart's trees are.
pub(super) fn read(tree: &Document, group: usize, weight: f32) -> Result<SplitTree, Problem> {
    let parameters = tree.get("tree_param")?;
    let nodes = parameters.count("num_nodes")?;
    at_most("nodes", nodes, NODES_MAX)?;
    let width = match parameters.find("size_leaf_vector") {
        Some(_) => parameters.count("size_leaf_vector")?.max(1),
        None => 1,
    };
    let left = tree.numbers("left_children")?;
    let right = tree.numbers("right_children")?;
    let columns = tree.counts("split_indices")?;
    let thresholds = tree.numbers("split_conditions")?;
    let default_left = flags(tree, "default_left")?;
    // Trees with several outputs have none before 3.2.
    let covers = tree
        .find("sum_hessian")
        .map_or(Ok([].as_slice()), |_| tree.numbers("sum_hessian"))?;
    let lengths = [
        left.len(),
        right.len(),
        columns.len(),
        thresholds.len(),
        default_left.len(),
    ];
    let covered = covers.is_empty() || covers.len() == nodes;
    if lengths.iter().any(|length| *length != nodes) || nodes == 0 || !covered {
        return Err(corrupt(format!(
            "It has {nodes} nodes and columns of {lengths:?}"
        )));
    }
    let sets = sets(tree)?;
    let leaves = Leaves::new(tree, nodes, width, weight)?;
    let mut found = SplitTree {
        nodes: Vec::with_capacity(nodes),
        covers: covers.to_vec(),
        score: group,
    };
    let missing_right = |at: usize| !default_left[at];
    for at in 0..nodes {
        found.nodes.push(if left[at] < 0.0 {
            leaves.leaf(at, thresholds[at], right[at])?
        } else {
            let test = match sets.get(&at) {
                Some(codes) => Test::InSet {
                    codes: codes.clone(),
                    member_right: true,
                    missing_right: missing_right(at),
                    invalid_right: false,
                },
                None => numeric(thresholds[at], missing_right(at))?,
            };
            TreeNode::Split {
                column: columns[at],
                test,
                left: left[at] as usize,
                right: right[at] as usize,
            }
        });
    }
    // A vector tree adds to all scores.
    if width > 1 {
        found.score = 0;
    }
    Ok(found)
}

/// Left where the input, as a float, is below the threshold.
fn numeric(threshold: f64, missing_right: bool) -> Result<Test, Problem> {
    let threshold = threshold as f32;
    if threshold.is_nan() || threshold == f32::NEG_INFINITY {
        return Err(corrupt(format!("It has the threshold {threshold}")));
    }
    Ok(Test::AtMost {
        threshold: single::below(threshold),
        missing_right,
        zero_missing: false,
    })
}

/// Numbers or booleans, whichever the version writes.
fn flags(tree: &Document, key: &str) -> Result<Vec<bool>, Problem> {
    if let Ok(numbers) = tree.numbers(key) {
        return Ok(numbers.iter().map(|n| *n != 0.0).collect());
    }
    let items = tree.list(key)?.iter();
    Ok(items.map(|item| *item == Document::Bool(true)).collect())
}

/// Sets of categories that go right, by node.
fn sets(tree: &Document) -> Result<BTreeMap<usize, Vec<u32>>, Problem> {
    if tree.find("categories_nodes").is_none() {
        return Ok(BTreeMap::new());
    }
    let nodes = tree.counts("categories_nodes")?;
    let begins = tree.counts("categories_segments")?;
    let sizes = tree.counts("categories_sizes")?;
    let categories = tree.counts("categories")?;
    if begins.len() != nodes.len() || sizes.len() != nodes.len() {
        return Err(corrupt("Its sets of categories don't fit its nodes"));
    }
    let all = sizes.iter().fold(0usize, |a, b| a.saturating_add(*b));
    at_most("categories in sets", all, MEMBERS_MAX)?;
    let mut sets = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let end = begins[index].saturating_add(sizes[index]);
        let members = categories.get(begins[index]..end);
        let members = members.ok_or_else(|| corrupt("It has a set that isn't there"))?;
        let most = members.iter().copied().max().unwrap_or(0);
        at_most("categories of one column", most, CATEGORY_MAX)?;
        let mut codes: Vec<u32> = members.iter().map(|m| *m as u32).collect();
        codes.sort_unstable();
        codes.dedup();
        sets.insert(*node, codes);
    }
    Ok(sets)
}

/// Where leaves have their numbers.
struct Leaves<'a> {
    /// Of trees with several outputs: all leaves', or all nodes' in versions before 3.2.
    vectors: Option<(&'a [f64], bool)>,
    width: usize,
    weight: f32,
}

impl<'a> Leaves<'a> {
    fn new(tree: &'a Document, nodes: usize, width: usize, weight: f32) -> Result<Self, Problem> {
        let vectors = if width == 1 {
            None
        } else if tree.find("leaf_weights").is_some() {
            Some((tree.numbers("leaf_weights")?, true))
        } else {
            let all = tree.numbers("base_weights")?;
            if all.len() != nodes.saturating_mul(width) {
                return Err(corrupt("`base_weights` doesn't fit the nodes"));
            }
            Some((all, false))
        };
        Ok(Self {
            vectors,
            width,
            weight,
        })
    }

    fn leaf(&self, node: usize, value: f64, right: f64) -> Result<TreeNode, Problem> {
        let one = [value];
        let values = match self.vectors {
            None => Some(one.as_slice()),
            Some((all, by_leaf)) => {
                let at = if by_leaf { right as usize } else { node };
                let begin = at.saturating_mul(self.width);
                all.get(begin..begin.saturating_add(self.width))
            }
        };
        let values = values.ok_or_else(|| corrupt("It has a leaf whose numbers aren't there"))?;
        let weighted = |v: &f64| f64::from(*v as f32 * self.weight);
        Ok(TreeNode::Leaf {
            values: values.iter().map(weighted).collect(),
            linear: None,
        })
    }
}
