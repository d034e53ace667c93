//! Down the trees, sixteen walks side by side: of as many rows through one tree, or of one row through as many trees. A single
//! walk waits for memory and for comparisons; these wait at the same time, and none of them branches.

use super::{
    CATEGORY, COLUMN, EQUAL, Forest, INVALID_RIGHT, MEMBER_RIGHT, MISSING_MEMBER, MISSING_RIGHT,
    Node, SPECIAL, Tree, ZERO_MAX, ZERO_MISSING,
};
use crate::Rows;

/// Walks side by side.
const LANES: usize = 16;
/// Groups of rows that go through a tree before the next one is fetched.
const GROUPS: usize = 2;
/// Columns of a single row for which no memory is asked for.
const STACK: usize = 512;

impl Forest {
    /// Adds up the leaves that each row reaches, tree by tree in the file's order; `out` has one number for each row and score.
    pub(crate) fn score(&self, rows: Rows<'_>, out: &mut [f64]) {
        for sums in out.chunks_exact_mut(self.scores) {
            sums.copy_from_slice(&self.base);
        }
        let together = rows.len() - rows.len() % LANES;
        if together > 0 {
            self.score_groups(rows, together, out);
        }
        let left = out.chunks_exact_mut(self.scores).enumerate().skip(together);
        for (index, sums) in left {
            let row = rows.row(index);
            let wide = row.len() * if self.twice { 2 } else { 1 };
            if wide <= STACK {
                self.score_one(row, &mut [0.0; STACK][..wide], sums);
            } else {
                self.score_one(row, &mut vec![0.0; wide], sums);
            }
        }
    }

    /// Rows that fill all lanes.
    fn score_groups(&self, rows: Rows<'_>, count: usize, out: &mut [f64]) {
        let columns = rows.columns();
        let wide = columns * if self.twice { 2 } else { 1 };
        let mut block = vec![[0.0; LANES]; wide * GROUPS.min(count / LANES)];
        for begin in (0..count).step_by(LANES * GROUPS) {
            let groups = ((count - begin) / LANES).min(GROUPS);
            for row in begin..begin + groups * LANES {
                let (group, lane) = ((row - begin) / LANES, row % LANES);
                let block = &mut block[group * wide..(group + 1) * wide];
                for (column, value) in rows.row(row).iter().enumerate() {
                    block[column][lane] = *value;
                    if self.twice {
                        block[columns + column][lane] = missing_last(*value);
                    }
                }
            }
            for tree in &self.trees {
                for group in 0..groups {
                    let first = begin + group * LANES;
                    let block = &block[group * wide..(group + 1) * wide];
                    let leaves = if tree.plain {
                        self.leaves_of_rows::<true>(tree, block)
                    } else {
                        self.leaves_of_rows::<false>(tree, block)
                    };
                    let sums = &mut out[first * self.scores..(first + LANES) * self.scores];
                    for (lane, sums) in sums.chunks_exact_mut(self.scores).enumerate() {
                        self.add_leaf(tree, leaves[lane] as usize, || rows.row(first + lane), sums);
                    }
                }
            }
        }
    }

    /// Where a group of rows ends in one tree.
    #[inline]
    fn leaves_of_rows<const PLAIN: bool>(
        &self,
        tree: &Tree,
        block: &[[f64; LANES]],
    ) -> [u32; LANES] {
        let mut at = [tree.first as u32; LANES];
        for _ in 0..tree.depth {
            for (lane, at) in at.iter_mut().enumerate() {
                *at = self.step::<PLAIN>(*at, |column| block[column][lane]);
            }
        }
        at
    }

    /// Where a walk goes from a node. A plain tree has no special tests.
    #[inline]
    fn step<const PLAIN: bool>(&self, at: u32, value: impl Fn(usize) -> f64) -> u32 {
        let node = &self.nodes[at as usize];
        let right = if PLAIN || node.column & SPECIAL == 0 {
            value(node.column as usize) > node.threshold
        } else {
            self.special_right(node, value((node.column & COLUMN) as usize))
        };
        node.child + u32::from(right)
    }

    /// One row, through all lanes' trees at a time. `wide` takes its columns.
    fn score_one(&self, row: &[f64], wide: &mut [f64], sums: &mut [f64]) {
        wide[..row.len()].copy_from_slice(row);
        for (to, value) in wide[row.len()..].iter_mut().zip(row) {
            *to = missing_last(*value);
        }
        for trees in self.trees.chunks(LANES) {
            let leaves = if trees.iter().all(|tree| tree.plain) {
                self.leaves_of_trees::<true>(trees, wide)
            } else {
                self.leaves_of_trees::<false>(trees, wide)
            };
            for (tree, leaf) in trees.iter().zip(leaves) {
                self.add_leaf(tree, leaf as usize, || row, sums);
            }
        }
    }

    /// Where one row ends in some trees, one for each lane at most.
    #[inline]
    fn leaves_of_trees<const PLAIN: bool>(&self, trees: &[Tree], wide: &[f64]) -> [u32; LANES] {
        // The last node is a leaf: a walk without a tree stays there.
        let mut at = [self.nodes.len().saturating_sub(1) as u32; LANES];
        for (at, tree) in at.iter_mut().zip(trees) {
            *at = tree.first as u32;
        }
        let depth = trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
        for _ in 0..depth {
            for at in &mut at {
                *at = self.step::<PLAIN>(*at, |column| wide[column]);
            }
        }
        at
    }

    #[inline]
    fn add_leaf<'a>(
        &self,
        tree: &Tree,
        leaf: usize,
        row: impl Fn() -> &'a [f64],
        sums: &mut [f64],
    ) {
        let from = tree.values + (leaf - tree.first) * tree.width;
        if !self.linear.is_empty() {
            sums[tree.score] += self.linear_value(leaf, row(), self.values[from]);
            return;
        }
        let values = &self.values[from..from + tree.width];
        let sums = &mut sums[tree.score..tree.score + tree.width];
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

    pub(super) fn goes_right(&self, node: &Node, row: &[f64]) -> bool {
        if node.column & SPECIAL != 0 {
            return self.special_right(node, row[(node.column & COLUMN) as usize]);
        }
        // In its second place, a column's missing values go right.
        let column = node.column as usize;
        match column.checked_sub(row.len()) {
            None => row[column] > node.threshold,
            Some(column) => missing_last(row[column]) > node.threshold,
        }
    }

    #[inline]
    fn special_right(&self, node: &Node, value: f64) -> bool {
        let has = |flag: u32| node.column & flag != 0;
        if has(EQUAL) {
            let member = value == node.threshold || (value.is_nan() && has(MISSING_MEMBER));
            return member == has(MEMBER_RIGHT);
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
        if value.is_nan() || (has(ZERO_MISSING) && value.abs() <= ZERO_MAX) {
            return has(MISSING_RIGHT);
        }
        value > node.threshold
    }
}

/// A missing value is beyond all thresholds, where it otherwise is beyond none.
#[inline]
fn missing_last(value: f64) -> f64 {
    if value.is_nan() { f64::INFINITY } else { value }
}
