//! Classical models in ONNX: trees behind scalers, imputers and encoders, run by our own engine of trees.
//!
//! The graph is laid out, when it is loaded, as steps over one run of numbers: each value is a few columns of it, and
//! a step reads columns before its own. Rows go through in blocks; nothing that a row answers depends on its block.

mod operators;
mod read;
#[cfg(test)]
mod tests;

use headwater_schema::Problem;

use super::attributes::Kind;
use super::engine::Engine;
use super::graph::Feed;
use super::steps::{Slot, Step};
use crate::{ModelContract, Rows};

pub(super) use read::load;

/// Rows of a block.
const BLOCK: usize = 64;
/// Numbers of a block, where rows are wide.
const BLOCK_NUMBERS: usize = 1 << 16;

/// A graph of classical operators that is ready to run.
struct Classical {
    contract: ModelContract,
    feeds: Vec<(Feed, Slot)>,
    steps: Vec<Placed>,
    outputs: Vec<Slot>,
    /// Numbers that one row takes, all values together.
    width: usize,
}

/// A step with what it reads and where it writes.
#[derive(Debug)]
struct Placed {
    step: Step,
    inputs: Vec<Slot>,
    output: Slot,
}

impl Classical {
    /// Runs some rows; a row's answers are NaN where it lacks a whole number.
    fn run_block(
        &self,
        rows: Rows<'_>,
        numbers: &mut [f64],
        out: &mut [f64],
    ) -> Result<(), Problem> {
        let count = rows.len();
        for (feed, slot) in &self.feeds {
            let to = &mut numbers[slot.at * count..(slot.at + slot.width) * count];
            for (row, to) in to.chunks_exact_mut(slot.width).enumerate() {
                for (to, number) in to.iter_mut().zip(feed.part(rows.row(row))) {
                    *to = match slot.kind {
                        Kind::Whole if !number.is_nan() => feed.whole(*number)? as f64,
                        kind => kind.round(*number),
                    };
                }
            }
        }
        for Placed {
            step,
            inputs,
            output,
        } in &self.steps
        {
            let (before, after) = numbers.split_at_mut(output.at * count);
            let after = &mut after[..(output.width + step.scratch()) * count];
            step.run(before, count, inputs, *output, after)?;
        }
        let width = self.contract.scores;
        let mut first = 0;
        for slot in &self.outputs {
            let from = slot.of(numbers, count).chunks_exact(slot.width);
            for (out, from) in out.chunks_exact_mut(width).zip(from) {
                out[first..first + slot.width].copy_from_slice(from);
            }
            first += slot.width;
        }
        for (feed, _) in self
            .feeds
            .iter()
            .filter(|(_, slot)| slot.kind == Kind::Whole)
        {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                if feed.part(rows.row(row)).iter().any(|n| n.is_nan()) {
                    out.fill(f64::NAN);
                }
            }
        }
        Ok(())
    }
}

impl Engine for Classical {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn run(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let (columns, scores) = (self.contract.inputs.len(), self.contract.scores);
        let block = (BLOCK_NUMBERS / self.width)
            .clamp(1, BLOCK)
            .min(rows.len().max(1));
        let mut numbers = vec![0.0; self.width * block];
        let blocks = rows.values().chunks(block * columns);
        for (rows, out) in blocks.zip(out.chunks_mut(block * scores)) {
            self.run_block(Rows::new(rows, columns)?, &mut numbers, out)?;
        }
        Ok(())
    }

    fn no_contributions(&self) -> Problem {
        Problem::user("no-contributions", "A model in ONNX has no contributions")
            .detail("It doesn't say how much training data came by each node")
            .hint("Ask without `explain`, or give the file that the trees' own package saves")
    }

    fn memory_bytes(&self) -> usize {
        self.steps
            .iter()
            .map(|placed| placed.step.memory_bytes())
            .sum()
    }
}
