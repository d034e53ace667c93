//! Down the trees, sixteen walks side by side: of as many rows through one tree, or of one row through as many trees. A single
//! walk waits for memory and for comparisons; these wait at the same time, and none of them branches.

use super::{Cell, Forest, Node, Nodes, Start, Tree, ZERO_MAX};
use crate::Rows;

/// Walks side by side.
const LANES: usize = 16;
/// Groups of rows that go through a tree before the next one is fetched.
const GROUPS: usize = 2;
/// Cells of a single row for which no memory is asked for.
const STACK: usize = 1024;
/// Trees whose leaves are found before they are added up, where a row comes alone.
pub(super) const BLOCK: usize = 512;

impl Forest {
    /// Adds up the leaves that each row reaches, tree by tree in the file's order; `out` has one number for each row and score.
    pub(crate) fn score(&self, rows: Rows<'_>, out: &mut [f64]) {
        for sums in out.chunks_exact_mut(self.scores) {
            sums.copy_from_slice(&self.base);
        }
        match &self.nodes {
            Nodes::Narrow(nodes) => self.score_rows(nodes, rows, out),
            Nodes::Wide(nodes) => self.score_rows(nodes, rows, out),
        }
    }

    fn score_rows<C: Cell>(&self, nodes: &[Node<C>], rows: Rows<'_>, out: &mut [f64]) {
        let together = rows.len() - rows.len() % LANES;
        if together > 0 {
            self.score_groups(nodes, rows, together, out);
        }
        let places = self.encoder.places();
        let left = out.chunks_exact_mut(self.scores).enumerate().skip(together);
        for (index, sums) in left {
            if places <= STACK {
                let mut cells = [C::default(); STACK];
                self.score_one(nodes, rows.row(index), &mut cells[..places], sums);
            } else {
                let mut cells = vec![C::default(); places];
                self.score_one(nodes, rows.row(index), &mut cells, sums);
            }
        }
    }

    /// Rows that fill all lanes.
    fn score_groups<C: Cell>(
        &self,
        nodes: &[Node<C>],
        rows: Rows<'_>,
        count: usize,
        out: &mut [f64],
    ) {
        let places = self.encoder.places();
        let mut cells = vec![[C::default(); LANES]; places * GROUPS.min(count / LANES)];
        for begin in (0..count).step_by(LANES * GROUPS) {
            let groups = ((count - begin) / LANES).min(GROUPS);
            cells.fill([C::default(); LANES]);
            for (group, cells) in cells.chunks_exact_mut(places).take(groups).enumerate() {
                let first = begin + group * LANES;
                for (lane, row) in (first..first + LANES).enumerate() {
                    let set = |place: usize, cell| cells[place][lane] = C::of(cell);
                    self.encoder.encode(rows.row(row), set);
                }
            }
            for tree in &self.trees {
                for (group, cells) in cells.chunks_exact(places).take(groups).enumerate() {
                    let first = begin + group * LANES;
                    let leaves = leaves_of_rows(nodes, tree, cells);
                    let sums = &mut out[first * self.scores..(first + LANES) * self.scores];
                    for (lane, sums) in sums.chunks_exact_mut(self.scores).enumerate() {
                        let row = || rows.row(first + lane);
                        self.add_leaf(tree, leaves[lane] as usize, row, sums);
                    }
                }
            }
        }
    }

    /// One row, through all lanes' trees at a time. `cells` are as many as there are places, and zero.
    fn score_one<C: Cell>(
        &self,
        nodes: &[Node<C>],
        row: &[f64],
        cells: &mut [C],
        sums: &mut [f64],
    ) {
        self.encoder
            .encode(row, |place, cell| cells[place] = C::of(cell));
        let mut leaves = [0; BLOCK];
        let starts = self.starts.chunks(BLOCK);
        for (trees, starts) in self.trees.chunks(BLOCK).zip(starts) {
            for starts in starts.chunks(LANES) {
                let ends = leaves_of_trees(nodes, starts, cells);
                for (start, end) in starts.iter().zip(ends) {
                    leaves[start.tree as usize] = end;
                }
            }
            for (tree, leaf) in trees.iter().zip(leaves) {
                self.add_leaf(tree, leaf as usize, || row, sums);
            }
        }
    }

    #[inline]
    fn add_leaf<'a>(
        &self,
        tree: &Tree,
        leaf: usize,
        row: impl Fn() -> &'a [f64],
        sums: &mut [f64],
    ) {
        let add = |sum: &mut f64, value: f64| {
            *sum = if self.single {
                f64::from(*sum as f32 + value as f32)
            } else {
                *sum + value
            };
        };
        if self.one_number {
            return add(&mut sums[0], self.values[leaf]);
        }
        let from = tree.values + (leaf - tree.first) * tree.width;
        if !self.linear.is_empty() {
            sums[tree.score] += self.linear_value(leaf, row(), self.values[from]);
            return;
        }
        let values = &self.values[from..from + tree.width];
        let sums = &mut sums[tree.score..tree.score + tree.width];
        for (sum, value) in sums.iter_mut().zip(values) {
            add(sum, *value);
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
}

/// Where a group of rows ends in one tree.
#[inline]
fn leaves_of_rows<C: Cell>(nodes: &[Node<C>], tree: &Tree, cells: &[[C; LANES]]) -> [u32; LANES] {
    let mut at = [tree.first as u32; LANES];
    for _ in 0..tree.depth {
        for (lane, at) in at.iter_mut().enumerate() {
            let node = &nodes[*at as usize];
            let cell = cells[node.place.wide() as usize][lane];
            *at = node.child + u32::from(cell > node.rank);
        }
    }
    at
}

/// Where one row ends in some trees, one for each lane at most.
#[inline]
fn leaves_of_trees<C: Cell>(nodes: &[Node<C>], starts: &[Start], cells: &[C]) -> [u32; LANES] {
    // The last node is a leaf: a walk without a tree stays there.
    let mut at = [nodes.len().saturating_sub(1) as u32; LANES];
    for (at, start) in at.iter_mut().zip(starts) {
        *at = start.first;
    }
    let depth = starts.last().map_or(0, |deepest| deepest.depth);
    for _ in 0..depth {
        for at in &mut at {
            let node = &nodes[*at as usize];
            let cell = cells[node.place.wide() as usize];
            *at = node.child + u32::from(cell > node.rank);
        }
    }
    at
}
