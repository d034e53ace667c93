//! What all that run graphs have in common, whoever runs them: a graph's last operators are its link function, so that
//! its scores are its outputs already; and the format has nothing of which contributions could be made.

use std::fmt;

use headwater_schema::Problem;

use crate::limits::{SCORES_MAX, at_most};
use crate::load::corrupt;
use crate::predictor::{check_buffer, check_shape};
use crate::{Input, ModelContract, Output, Predictor, Rows, Task};

/// A graph that is ready to run.
pub(super) trait Engine: Send + Sync {
    fn contract(&self) -> &ModelContract;

    /// Answers rows, in a buffer that has been held to the contract, as they have.
    fn run(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem>;

    fn memory_bytes(&self) -> usize;

    /// What is said to whoever asks for contributions.
    fn no_contributions(&self) -> Problem {
        Problem::user("no-contributions", "A network has no contributions")
            .hint("Ask without `explain`")
    }
}

/// The predictor that an engine makes.
pub(super) struct Graph<E>(E);

impl<E: Engine + 'static> Graph<E> {
    pub(super) fn boxed(engine: E) -> Box<dyn Predictor> {
        Box::new(Self(engine))
    }
}

impl<E: Engine> fmt::Debug for Graph<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("contract", self.0.contract())
            .finish_non_exhaustive()
    }
}

impl<E: Engine> Predictor for Graph<E> {
    fn contract(&self) -> &ModelContract {
        self.0.contract()
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let contract = self.0.contract();
        check_shape(contract, rows, out, contract.scores)?;
        self.0.run(rows, out)
    }

    fn outputs(&self, scores: &[f64], out: &mut [f64]) -> Result<(), Problem> {
        let width = self.0.contract().scores;
        check_buffer(scores.len() / width, out, width)?;
        check_buffer(out.len() / width, scores, width)?;
        out.copy_from_slice(scores);
        Ok(())
    }

    fn contributions(&self, _: Rows<'_>, _: &mut [f64]) -> Result<(), Problem> {
        Err(self.0.no_contributions())
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}

/// What a graph takes and answers: every number is a score, and the names of outputs are told apart.
pub(super) fn contract(
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    classes: Vec<String>,
    no_contributions: &str,
) -> Result<ModelContract, Problem> {
    for (place, output) in outputs.iter().enumerate() {
        if outputs[..place].iter().any(|o| o.name == output.name) {
            return Err(corrupt(format!("Two outputs are called `{}`", output.name)));
        }
        if output.width == 0 {
            return Err(corrupt(format!("The output `{}` is empty", output.name)));
        }
    }
    if outputs.is_empty() {
        return Err(corrupt("Its graph answers nothing"));
    }
    let scores = outputs
        .iter()
        .fold(0_usize, |n, o| n.saturating_add(o.width));
    at_most("scores", scores, SCORES_MAX)?;
    Ok(ModelContract {
        inputs,
        task: match classes.is_empty() {
            true => Task::Regression,
            false => Task::Multiclass,
        },
        scores,
        outputs,
        classes,
        contributions: Err(no_contributions.into()),
    })
}

/// Runs rows one after another, for engines whose answers to many at once may differ in their last bits.
pub(super) fn each_row(
    rows: Rows<'_>,
    out: &mut [f64],
    width: usize,
    mut run: impl FnMut(&[f64], &mut [f64]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut rows = (0..rows.len()).map(|row| rows.row(row));
    let mut outs = out.chunks_exact_mut(width);
    rows.try_for_each(|row| outs.next().map_or(Ok(()), |out| run(row, out)))
}

/// That a graph couldn't be run though it could when it was loaded.
pub(super) fn failed(detail: impl fmt::Display) -> Problem {
    Problem::internal("model-failed", "A network couldn't be run").detail(detail)
}

/// Puts numbers in their places, of which there are to be as many.
pub(super) fn fill(out: &mut [f64], numbers: impl Iterator<Item = f64>) -> Result<(), Problem> {
    let mut places = out.iter_mut();
    for number in numbers {
        match places.next() {
            Some(place) => *place = number,
            None => return Err(failed("It answered more than it said")),
        }
    }
    match places.next() {
        None => Ok(()),
        Some(_) => Err(failed("It answered less than it said")),
    }
}
