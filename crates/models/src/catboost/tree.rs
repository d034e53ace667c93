//! CatBoost's trees: symmetric ones, whose levels share a split and whose leaves are numbered by the answers, and nested ones.

use headwater_schema::Problem;

use super::{Ctrs, Features, number};
use crate::document::Document;
use crate::forest::{SplitTree, Test, TreeNode};
use crate::limits::{NODES_MAX, TREE_DEPTH_MAX, at_most};
use crate::load::{corrupt, unsupported};
use crate::single;

/// Where splits of statistics begin in CatBoost's numbering of splits: after borders and one-hot values.
pub(super) struct Splits<'a> {
    features: &'a Features,
    /// Numbers of splits up to the end of each statistic's.
    ctr_ends: Vec<usize>,
    first_ctr: usize,
}

impl<'a> Splits<'a> {
    pub(super) fn read(
        info: &Document,
        features: &'a Features,
        ctrs: &Ctrs,
    ) -> Result<Self, Problem> {
        let mut end = 0usize;
        for (kind, values) in [
            ("float_features", "borders"),
            ("categorical_features", "values"),
        ] {
            let listed = info
                .find(kind)
                .map_or(Ok([].as_slice()), |_| info.list(kind))?;
            for feature in listed {
                if feature.find(values).is_some() {
                    end += feature.numbers(values)?.len();
                }
            }
        }
        let first_ctr = end;
        let mut ctr_ends = Vec::with_capacity(ctrs.len());
        for count in ctrs.borders() {
            end += count;
            ctr_ends.push(end);
        }
        Ok(Self {
            features,
            ctr_ends,
            first_ctr,
        })
    }

    /// A split's column and test; its positive answer goes right.
    fn test(&self, split: &Document) -> Result<(usize, Test), Problem> {
        match split.text("split_type")? {
            "FloatFeature" => {
                let float = self.features.float(number(split, "float_feature_index")?)?;
                let threshold = single::at_most(split.number("border")? as f32);
                Ok((float.column, above(threshold, float.missing_above)))
            }
            "OneHotFeature" => {
                let column = self
                    .features
                    .category(number(split, "cat_feature_index")?)?;
                // Some versions write the hash as a signed number.
                let value = split.number("value")?;
                let value = if value < 0.0 {
                    f64::from(value as i32 as u32)
                } else {
                    value
                };
                let test = Test::Equal {
                    value,
                    member_right: true,
                    missing_member: false,
                };
                Ok((column, test))
            }
            "OnlineCtr" => {
                let index = split.count("split_index")?;
                let ctr = self.ctr_ends.iter().position(|end| index < *end);
                let ctr = ctr.filter(|_| index >= self.first_ctr);
                let ctr = ctr.ok_or_else(|| corrupt(format!("Its split {index} isn't there")))?;
                let threshold = single::at_most(split.number("border")? as f32);
                Ok((self.features.inputs.len() + ctr, above(threshold, false)))
            }
            other => Err(unsupported(format!("CatBoost's split `{other}`"))),
        }
    }
}

fn above(threshold: f64, missing_right: bool) -> Test {
    Test::AtMost {
        threshold,
        missing_right,
        zero_missing: false,
    }
}

/// Numbers of each leaf.
pub(super) fn width(tree: &Document, symmetric: bool) -> Result<usize, Problem> {
    if symmetric {
        let splits = tree.list("splits").map_or(0, <[_]>::len);
        let leaves = 1usize.checked_shl(splits as u32).unwrap_or(usize::MAX);
        return Ok((tree.numbers("leaf_values")?.len() / leaves).max(1));
    }
    let mut node = tree;
    while node.find("split").is_some() {
        node = node.get("left")?;
    }
    Ok(leaf_values(node)?.len())
}

pub(super) fn read(
    tree: &Document,
    symmetric: bool,
    splits: &Splits<'_>,
    width: usize,
) -> Result<SplitTree, Problem> {
    let mut found = SplitTree::default();
    if symmetric {
        read_symmetric(tree, splits, width, &mut found)?;
    } else {
        read_nested(tree, splits, 0, &mut found)?;
    }
    if found.covers.iter().any(|c| c.is_nan()) {
        found.covers.clear();
    }
    Ok(found)
}

/// Leaf `l` is where the answer to split `i` is bit `i` of `l`: the last split is the root, so that leaves stand in order.
fn read_symmetric(
    tree: &Document,
    splits: &Splits<'_>,
    width: usize,
    found: &mut SplitTree,
) -> Result<(), Problem> {
    let listed = tree
        .find("splits")
        .map_or(Ok([].as_slice()), |_| tree.list("splits"))?;
    let tests: Result<Vec<(usize, Test)>, Problem> =
        listed.iter().map(|s| splits.test(s)).collect();
    let tests = tests?;
    let values = tree.numbers("leaf_values")?;
    let leaves = 1usize.checked_shl(tests.len() as u32).unwrap_or(usize::MAX);
    if leaves.checked_mul(width) != Some(values.len()) {
        return Err(corrupt(format!(
            "It has {} splits and {} numbers in leaves",
            tests.len(),
            values.len()
        )));
    }
    at_most("nodes", 2 * leaves, NODES_MAX)?;
    for level in 0..tests.len() {
        let (column, test) = &tests[tests.len() - 1 - level];
        let (first, next) = ((1 << level) - 1, (2 << level) - 1);
        for at in 0..1usize << level {
            debug_assert_eq!(found.nodes.len(), first + at);
            found.nodes.push(TreeNode::Split {
                column: *column,
                test: test.clone(),
                left: next + 2 * at,
                right: next + 2 * at + 1,
            });
        }
    }
    for leaf in values.chunks_exact(width) {
        found.nodes.push(TreeNode::Leaf {
            values: leaf.to_vec(),
            linear: None,
        });
    }
    if tree.find("leaf_weights").is_some() {
        let weights = tree.numbers("leaf_weights")?;
        if weights.len() != leaves {
            return Err(corrupt("`leaf_weights` doesn't fit the leaves"));
        }
        found.covers = vec![0.0; leaves - 1];
        found.covers.extend_from_slice(weights);
        for at in (0..leaves - 1).rev() {
            found.covers[at] = found.covers[2 * at + 1] + found.covers[2 * at + 2];
        }
    }
    Ok(())
}

/// Adds a node and what is below it; its cover.
fn read_nested(
    node: &Document,
    splits: &Splits<'_>,
    depth: usize,
    found: &mut SplitTree,
) -> Result<f64, Problem> {
    at_most("splits on one path", depth, TREE_DEPTH_MAX)?;
    let at = found.nodes.len();
    let Some(split) = node.find("split") else {
        found.nodes.push(TreeNode::Leaf {
            values: leaf_values(node)?,
            linear: None,
        });
        let cover = match node.find("weight") {
            Some(_) => node.number("weight")?,
            None => f64::NAN,
        };
        found.covers.push(cover);
        return Ok(cover);
    };
    let (column, test) = splits.test(split)?;
    found.covers.push(0.0);
    found.nodes.push(TreeNode::Leaf {
        values: Vec::new(),
        linear: None,
    });
    let left = found.nodes.len();
    let mut cover = read_nested(node.get("left")?, splits, depth + 1, found)?;
    let right = found.nodes.len();
    cover += read_nested(node.get("right")?, splits, depth + 1, found)?;
    found.covers[at] = cover;
    found.nodes[at] = TreeNode::Split {
        column,
        test,
        left,
        right,
    };
    Ok(cover)
}

fn leaf_values(leaf: &Document) -> Result<Vec<f64>, Problem> {
    match leaf.get("value")? {
        Document::Number(value) => Ok(vec![*value]),
        Document::Numbers(values) if !values.is_empty() => Ok(values.clone()),
        _ => Err(corrupt("A leaf's `value` isn't a number or a list of them")),
    }
}
