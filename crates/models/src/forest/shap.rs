//! Contributions by TreeSHAP: the Shapley values of a tree's expectation, where what isn't known is averaged over the
//! training data that took each branch (Lundberg and others, "Consistent Individualized Feature Attribution for Tree
//! Ensembles", algorithm 2). Exact, in time leaves × depth².

use super::{Forest, Tree};
use crate::Rows;

/// Who shares in contributions: columns by default, or groups of them.
#[derive(Debug)]
pub(crate) struct Players {
    pub(crate) count: usize,
    /// The player of each column.
    pub(crate) of_column: Vec<usize>,
}

/// One input on the way from the root to a node.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    player: Option<usize>,
    /// The share of training data that goes this way when the input isn't known.
    zero: f64,
    /// One where the row goes this way, zero otherwise.
    one: f64,
    /// The weight of the subsets with as many known inputs as this step's place.
    weight: f64,
}

/// Walks one tree for one row.
struct Walk<'a> {
    forest: &'a Forest,
    players: &'a Players,
    tree: &'a Tree,
    /// The row, encoded.
    cells: &'a [u32],
    /// Numbers of one score: the players, and the expectation.
    stride: usize,
}

impl Forest {
    /// Contributions of each row: `scores` runs of one number for each player and one for the expectation.
    pub(crate) fn explain(&self, rows: Rows<'_>, players: &Players, out: &mut [f64]) {
        let stride = players.count + 1;
        let deepest = self.trees.iter().map(|t| t.depth).max().unwrap_or(0);
        // Each level of the walk keeps a path of its own.
        let mut steps = vec![Step::default(); (deepest + 2) * (deepest + 3)];
        let mut cells = vec![0; self.encoder.places()];
        let expectations: Vec<Vec<f64>> = self.trees.iter().map(|t| self.expectation(t)).collect();
        for (index, phi) in out.chunks_exact_mut(self.scores * stride).enumerate() {
            phi.fill(0.0);
            cells.fill(0);
            let row = rows.row(index);
            self.encoder.encode(row, |place, cell| cells[place] = cell);
            for (score, base) in self.base.iter().enumerate() {
                phi[score * stride + stride - 1] = *base;
            }
            for (tree, expectation) in self.trees.iter().zip(&expectations) {
                for (score, value) in expectation.iter().enumerate() {
                    phi[(tree.score + score) * stride + stride - 1] += value;
                }
                let walk = Walk {
                    forest: self,
                    players,
                    tree,
                    cells: &cells,
                    stride,
                };
                if tree.depth > 0 {
                    walk.visit(0, &mut steps, 0, Step::root(), phi);
                }
            }
        }
    }

    /// What a tree says on average over its training data.
    fn expectation(&self, tree: &Tree) -> Vec<f64> {
        let all = self.covers[tree.first];
        let mut sums = vec![0.0; tree.width];
        for at in 0..tree.end - tree.first {
            if self.node(tree.first + at).child as usize == tree.first + at {
                let share = if tree.depth == 0 {
                    1.0
                } else {
                    self.covers[tree.first + at] / all
                };
                let from = tree.values + at * tree.width;
                for (sum, value) in sums.iter_mut().zip(&self.values[from..]) {
                    *sum += share * value;
                }
            }
        }
        sums
    }
}

impl Step {
    fn root() -> Self {
        Self {
            player: None,
            zero: 1.0,
            one: 1.0,
            weight: 1.0,
        }
    }
}

impl Walk<'_> {
    /// Extends the path of `depth` steps at the front of `steps` by `step`, and visits what is below `at`.
    fn visit(&self, at: usize, steps: &mut [Step], depth: usize, step: Step, phi: &mut [f64]) {
        extend(steps, depth, step);
        let node = self.forest.node(self.tree.first + at);
        let first = node.child as usize - self.tree.first;
        if first == at {
            self.add_leaf(at, &steps[..=depth], phi);
            return;
        }
        let place = node.place as usize;
        let (hot, cold) = if self.cells[place] > node.rank {
            (first + 1, first)
        } else {
            (first, first + 1)
        };
        let player = self.players.of_column[self.forest.encoder.column(place)];
        let mut count = depth + 1;
        let (mut zero, mut one) = (1.0, 1.0);
        // An input that was met before counts once: its earlier step is taken out.
        if let Some(before) = (1..=depth).find(|i| steps[*i].player == Some(player)) {
            (zero, one) = (steps[before].zero, steps[before].one);
            unwind(steps, depth, before);
            count = depth;
        }
        for (child, one) in [(hot, one), (cold, 0.0)] {
            let share = self.share(at, child);
            // What neither the row nor any training data reaches adds nothing.
            if one == 0.0 && share == 0.0 {
                continue;
            }
            let (path, rest) = steps.split_at_mut(count);
            rest[..count].copy_from_slice(path);
            let step = Step {
                player: Some(player),
                zero: zero * share,
                one,
                weight: 0.0,
            };
            self.visit(child, rest, count, step, phi);
        }
    }

    /// The part of a node's training data that went to its child.
    fn share(&self, at: usize, child: usize) -> f64 {
        let covers = &self.forest.covers[self.tree.first..self.tree.end];
        if covers[at] > 0.0 {
            covers[child] / covers[at]
        } else {
            0.0
        }
    }

    fn add_leaf(&self, at: usize, steps: &[Step], phi: &mut [f64]) {
        let from = self.tree.values + at * self.tree.width;
        let values = &self.forest.values[from..from + self.tree.width];
        let depth = steps.len() - 1;
        for (index, step) in steps.iter().enumerate().skip(1) {
            let share = unwound_sum(steps, depth, index) * (step.one - step.zero);
            for (score, value) in values.iter().enumerate() {
                if let Some(player) = step.player {
                    phi[(self.tree.score + score) * self.stride + player] += share * value;
                }
            }
        }
    }
}

/// Weights of all subsets of a path that is one step longer; `depth` is the new step's place.
fn extend(steps: &mut [Step], depth: usize, step: Step) {
    steps[depth] = Step {
        weight: if depth == 0 { 1.0 } else { 0.0 },
        ..step
    };
    let count = (depth + 1) as f64;
    for i in (0..depth).rev() {
        let weight = steps[i].weight;
        steps[i + 1].weight += step.one * weight * (i + 1) as f64 / count;
        steps[i].weight = step.zero * weight * (depth - i) as f64 / count;
    }
}

/// Undoes `extend` for the step at `index`, and moves the later ones down.
fn unwind(steps: &mut [Step], depth: usize, index: usize) {
    let Step { zero, one, .. } = steps[index];
    let count = (depth + 1) as f64;
    let mut next = steps[depth].weight;
    for i in (0..depth).rev() {
        let weight = steps[i].weight;
        if one == 0.0 {
            steps[i].weight = weight * count / (zero * (depth - i) as f64);
        } else {
            steps[i].weight = next * count / ((i + 1) as f64 * one);
            next = weight - steps[i].weight * zero * (depth - i) as f64 / count;
        }
    }
    for i in index..depth {
        steps[i] = Step {
            weight: steps[i].weight,
            ..steps[i + 1]
        };
    }
}

/// The sum of the weights that `unwind` would leave.
fn unwound_sum(steps: &[Step], depth: usize, index: usize) -> f64 {
    let Step { zero, one, .. } = steps[index];
    let count = (depth + 1) as f64;
    let mut next = steps[depth].weight;
    let mut sum = 0.0;
    for i in (0..depth).rev() {
        if one != 0.0 {
            let weight = next * count / ((i + 1) as f64 * one);
            sum += weight;
            next = steps[i].weight - weight * zero * (depth - i) as f64 / count;
        } else if zero != 0.0 {
            sum += steps[i].weight / (zero * (depth - i) as f64 / count);
        }
    }
    sum
}
