//! Down the trees: one row through all trees, or many rows through one tree at a time.

use super::{
    CATEGORY, COLUMN, EQUAL, Forest, INVALID_RIGHT, MEMBER_RIGHT, MISSING_RIGHT, Node, Tree,
    ZERO_MAX, ZERO_MISSING,
};
use crate::Rows;

impl Forest {
    /// Adds up the leaves that each row reaches; `out` has one number for each row and score.
    pub(crate) fn score(&self, rows: Rows<'_>, out: &mut [f64]) {
        for (index, sums) in out.chunks_exact_mut(self.scores).enumerate() {
            let row = rows.row(index);
            sums.copy_from_slice(&self.base);
            for tree in &self.trees {
                let leaf = self.leaf(tree, row);
                self.add_leaf(tree, leaf, row, sums);
            }
        }
    }

    /// The leaf that a row reaches, from the tree's first node.
    #[inline]
    fn leaf(&self, tree: &Tree, row: &[f64]) -> usize {
        let nodes = &self.nodes[tree.first..tree.end];
        if tree.plain {
            return descend(nodes, |node| {
                plain_right(node, row[(node.column & COLUMN) as usize])
            });
        }
        descend(nodes, |node| self.goes_right(node, row))
    }

    #[inline]
    fn add_leaf(&self, tree: &Tree, leaf: usize, row: &[f64], sums: &mut [f64]) {
        let from = tree.values + leaf * tree.width;
        let values = &self.values[from..from + tree.width];
        let sums = &mut sums[tree.score..tree.score + tree.width];
        if !self.linear.is_empty() {
            sums[0] += self.linear_value(tree.first + leaf, row, values[0]);
            return;
        }
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = if self.single {
                f64::from(*sum as f32 + *value as f32)
            } else {
                *sum + value
            };
        }
    }

    /// What a leaf with a line says; `otherwise` where one of its inputs is missing, or it has no line.
    fn linear_value(&self, node: usize, row: &[f64], otherwise: f64) -> f64 {
        let Some(Some(line)) = self.linear.get(node) else {
            return otherwise;
        };
        let mut sum = line.intercept;
        for (column, coefficient) in &line.terms {
            let value = row[*column];
            if value.is_nan() {
                return otherwise;
            }
            if value.abs() > ZERO_MAX {
                sum += coefficient * value;
            }
        }
        sum
    }

    #[inline]
    pub(super) fn goes_right(&self, node: &Node, row: &[f64]) -> bool {
        let value = row[(node.column & COLUMN) as usize];
        if node.column & super::SPECIAL == 0 {
            return plain_right(node, value);
        }
        self.special_right(node, value)
    }

    fn special_right(&self, node: &Node, value: f64) -> bool {
        let has = |flag: u32| node.column & flag != 0;
        if has(EQUAL) {
            return (value == node.threshold) == has(MEMBER_RIGHT);
        }
        if has(CATEGORY) {
            if value.is_nan() {
                return has(MISSING_RIGHT);
            }
            // A fraction is cut off, so that −0.5 is 0; XGBoost rounds to floats first, and takes nothing below zero.
            let (value, invalid) = if self.single {
                let value = f64::from(value as f32);
                (value, !(0.0..16_777_216.0).contains(&value))
            } else {
                (value, value <= -1.0 || value >= 2_147_483_648.0)
            };
            if invalid {
                return has(INVALID_RIGHT);
            }
            let code = value as u32;
            let (begin, end) = self.sets[node.threshold as usize];
            let word = self.words[begin..end].get((code / 32) as usize);
            let member = word.is_some_and(|w| w >> (code % 32) & 1 == 1);
            return member == has(MEMBER_RIGHT);
        }
        if has(ZERO_MISSING) && value.abs() <= ZERO_MAX {
            return has(MISSING_RIGHT);
        }
        plain_right(node, value)
    }
}

#[inline]
fn descend(nodes: &[Node], goes_right: impl Fn(&Node) -> bool) -> usize {
    let mut at = 0;
    loop {
        let node = &nodes[at];
        let next = node.child as usize + usize::from(goes_right(node));
        if next == at {
            return at;
        }
        at = next;
    }
}

#[inline]
fn plain_right(node: &Node, value: f64) -> bool {
    value > node.threshold || (value.is_nan() && node.column & MISSING_RIGHT != 0)
}
