//! Down the trees, sixteen walks side by side: of as many rows through one tree, or of one row through as many trees. A single
//! walk waits for memory and for comparisons; these wait at the same time, and few of them branch.

use super::{
    ANY, COLUMN, COMPARISONS, EQUAL, Forest, IN_SET, IN_SET_PLACE, MEMBER_RIGHT, MISSING_MEMBER,
    MISSING_RIGHT, Node, SETS, SPECIAL, Set, Tree, ZERO_MAX, ZERO_MISSING,
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
            let wide = row.len() * self.places();
            if wide <= STACK {
                self.score_one(row, &mut [0.0; STACK][..wide], sums);
            } else {
                self.score_one(row, &mut vec![0.0; wide], sums);
            }
        }
    }

    /// How often a column stands in a widened row.
    fn places(&self) -> usize {
        match (self.categories.is_empty(), self.twice) {
            (false, _) => 3,
            (true, true) => 2,
            (true, false) => 1,
        }
    }

    /// Gives a row's columns their second and third places, where trees look at them.
    #[inline]
    fn widen(&self, row: &[f64], mut put: impl FnMut(usize, f64)) {
        for (column, value) in row.iter().enumerate() {
            put(column, *value);
        }
        if self.twice {
            for (column, value) in row.iter().enumerate() {
                put(row.len() + column, missing_last(*value));
            }
        }
        for column in &self.categories {
            let column = *column as usize;
            let place = Set::place(row[column], self.single);
            put(2 * row.len() + column, place);
        }
    }

    /// Rows that fill all lanes.
    fn score_groups(&self, rows: Rows<'_>, count: usize, out: &mut [f64]) {
        let wide = rows.columns() * self.places();
        let mut block = vec![[0.0; LANES]; wide * GROUPS.min(count / LANES)];
        for begin in (0..count).step_by(LANES * GROUPS) {
            let groups = ((count - begin) / LANES).min(GROUPS);
            for row in begin..begin + groups * LANES {
                let (group, lane) = ((row - begin) / LANES, row % LANES);
                let block = &mut block[group * wide..(group + 1) * wide];
                self.widen(rows.row(row), |place, value| block[place][lane] = value);
            }
            for tree in &self.trees {
                for group in 0..groups {
                    let first = begin + group * LANES;
                    let block = &block[group * wide..(group + 1) * wide];
                    let leaves = match tree.tests {
                        COMPARISONS => self.leaves_of_rows::<COMPARISONS>(tree, block),
                        SETS => self.leaves_of_rows::<SETS>(tree, block),
                        _ => self.leaves_of_rows::<ANY>(tree, block),
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
    fn leaves_of_rows<const TESTS: u8>(&self, tree: &Tree, block: &[[f64; LANES]]) -> [u32; LANES] {
        let mut at = [tree.first as u32; LANES];
        for _ in 0..tree.depth {
            for (lane, at) in at.iter_mut().enumerate() {
                *at = self.step::<TESTS>(*at, |column| block[column][lane]);
            }
        }
        at
    }

    /// Where a walk goes from a node of a tree with such tests.
    #[inline]
    fn step<const TESTS: u8>(&self, at: u32, value: impl Fn(usize) -> f64) -> u32 {
        let node = &self.nodes[at as usize];
        // Comparisons have no flags.
        let place = match TESTS {
            COMPARISONS => node.column,
            _ => node.column & COLUMN,
        };
        let value = value(place as usize);
        let right = match TESTS {
            COMPARISONS => value > node.threshold,
            ANY if node.column & SPECIAL != 0 => self.special_right(node, value),
            _ => self.set_or_comparison(node, value),
        };
        node.child + u32::from(right)
    }

    /// Both are worked out, since a wrong guess of which is wanted costs more.
    #[inline]
    fn set_or_comparison(&self, node: &Node, value: f64) -> bool {
        let in_set = node.column >> IN_SET_PLACE & 1;
        let set = Set::of(node);
        let bit = (value.to_bits() as u32).min(set.last);
        let word = set.begin.wrapping_add(bit / 32).wrapping_mul(in_set);
        let goes_right = self.words[word as usize] >> (bit % 32) & 1;
        (in_set & goes_right) | ((in_set ^ 1) & u32::from(value > node.threshold)) == 1
    }

    /// One row, through all lanes' trees at a time. `wide` takes its columns.
    fn score_one(&self, row: &[f64], wide: &mut [f64], sums: &mut [f64]) {
        self.widen(row, |place, value| wide[place] = value);
        for trees in self.trees.chunks(LANES) {
            let leaves = match trees.iter().map(|tree| tree.tests).max() {
                None | Some(COMPARISONS) => self.leaves_of_trees::<COMPARISONS>(trees, wide),
                Some(SETS) => self.leaves_of_trees::<SETS>(trees, wide),
                Some(_) => self.leaves_of_trees::<ANY>(trees, wide),
            };
            for (tree, leaf) in trees.iter().zip(leaves) {
                self.add_leaf(tree, leaf as usize, || row, sums);
            }
        }
    }

    /// Where one row ends in some trees, one for each lane at most.
    #[inline]
    fn leaves_of_trees<const TESTS: u8>(&self, trees: &[Tree], wide: &[f64]) -> [u32; LANES] {
        // The last node is a leaf: a walk without a tree stays there.
        let mut at = [self.nodes.len().saturating_sub(1) as u32; LANES];
        for (at, tree) in at.iter_mut().zip(trees) {
            *at = tree.first as u32;
        }
        let depth = trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
        for _ in 0..depth {
            for at in &mut at {
                *at = self.step::<TESTS>(*at, |column| wide[column]);
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
        let place = (node.column & COLUMN) as usize;
        let value = row[place % row.len()];
        if node.column & SPECIAL != 0 {
            self.special_right(node, value)
        } else if node.column & IN_SET != 0 {
            self.set_or_comparison(node, Set::place(value, self.single))
        } else if place >= row.len() {
            missing_last(value) > node.threshold
        } else {
            value > node.threshold
        }
    }

    #[inline]
    fn special_right(&self, node: &Node, value: f64) -> bool {
        let has = |flag: u32| node.column & flag != 0;
        if has(EQUAL) {
            let member = value == node.threshold || (value.is_nan() && has(MISSING_MEMBER));
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
