//! TreeEnsembleRegressor and TreeEnsembleClassifier: their columns of numbers to trees of our own engine.
//!
//! As ONNX Runtime computes them: inputs and leaves are floats (doubles where the input is), a row's leaves are added
//! in the file's order of trees, and base values at the end.

mod ensemble;

use headwater_schema::Problem;

use super::attributes::{Attributes, Kind};
use super::transform::{Transform, logistic};
use crate::Rows;
use crate::forest::Forest;
use crate::load::{corrupt, unsupported};
use ensemble::Ensemble;

/// A class's label, as large as a double can hold.
const LABEL_MAX: u64 = 1 << 53;

#[derive(Debug)]
pub(super) struct Trees {
    forest: Forest,
    /// Numbers of a row that leaves add to.
    scores: usize,
    /// For each score, or none at all.
    base: Vec<f64>,
    /// The number of trees, where their mean is taken.
    divisor: Option<f64>,
    /// Sums are floats.
    kind: Kind,
    answer: Answer,
    transform: Transform,
    pub(super) labels: Option<Labels>,
}

#[derive(Debug)]
enum Answer {
    /// All scores, transformed.
    All,
    /// Of one score `v` two classes: `1 − v` and `v`.
    Rest,
    /// `−v` and `v`.
    Opposite,
}

/// Classes, and which of them a row is of.
#[derive(Debug)]
pub(super) struct Labels {
    /// As text.
    pub(super) names: Vec<String>,
    /// As numbers, where they are.
    pub(super) numbers: Option<Vec<f64>>,
    rule: Rule,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// The class with the largest score, the first of equals.
    Largest,
    /// The second class where this score is above the bound.
    Above(usize, f64),
}

impl Labels {
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, Problem> {
        let texts = [
            "classlabels_strings",
            "classlabels_int64s",
            "classlabels_ints",
        ];
        let names = attributes.texts(texts[0])?;
        if !names.is_empty() {
            return Ok(Self {
                names: names.into_iter().map(str::to_owned).collect(),
                numbers: None,
                rule: Rule::Largest,
            });
        }
        let numbers = [attributes.ints(texts[1]), attributes.ints(texts[2])].concat();
        if numbers.iter().any(|n| n.unsigned_abs() > LABEL_MAX) {
            return Err(unsupported("Labels of classes above 2^53"));
        }
        Ok(Self {
            names: numbers.iter().map(i64::to_string).collect(),
            numbers: Some(numbers.iter().map(|n| *n as f64).collect()),
            rule: Rule::Largest,
        })
    }

    /// The number of the class that the scores speak for.
    pub(super) fn number(&self, scores: impl Fn(usize) -> f64) -> f64 {
        let class = match self.rule {
            Rule::Above(score, bound) => usize::from(scores(score) > bound),
            Rule::Largest => (1..self.names.len()).fold(0, |best, class| {
                if scores(class) > scores(best) {
                    class
                } else {
                    best
                }
            }),
        };
        let numbers = self.numbers.as_ref();
        numbers
            .and_then(|n| n.get(class))
            .copied()
            .unwrap_or(f64::NAN)
    }
}

impl Trees {
    /// Numbers that are answered for a row.
    pub(super) fn width(&self) -> usize {
        match self.answer {
            Answer::All => self.scores,
            Answer::Rest | Answer::Opposite => 2,
        }
    }

    /// Numbers of a row that `run` works with.
    pub(super) fn scratch(&self) -> usize {
        self.scores
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.forest.memory_bytes()
    }

    /// Answers rows; `labels` has one number for each.
    pub(super) fn run(
        &self,
        rows: Rows<'_>,
        sums: &mut [f64],
        out: &mut [f64],
        labels: &mut [f64],
    ) {
        self.forest.score(rows, sums);
        let each = sums.chunks_exact_mut(self.scores);
        let outs = out.chunks_exact_mut(self.width());
        for ((sums, out), label) in each.zip(outs).zip(labels) {
            for (index, sum) in sums.iter_mut().enumerate() {
                if let Some(divisor) = self.divisor {
                    *sum = self.kind.round(*sum / divisor);
                }
                if let Some(base) = self.base.get(index) {
                    *sum = self.kind.round(*sum + base);
                }
            }
            if let Some(labels) = &self.labels {
                *label = labels.number(|score| sums[score]);
            }
            self.answer(sums, out);
        }
    }

    fn answer(&self, scores: &[f64], out: &mut [f64]) {
        let single = scores[0] as f32;
        let (first, second) = match self.answer {
            Answer::All => {
                for (out, score) in out.iter_mut().zip(scores) {
                    *out = Kind::Single.round(*score);
                }
                self.transform.apply(out);
                return;
            }
            _ if self.transform == Transform::Logistic => (logistic(-single), logistic(single)),
            Answer::Rest => (1.0 - single, single),
            Answer::Opposite => (-single, single),
        };
        out.copy_from_slice(&[f64::from(first), f64::from(second)]);
    }

    pub(super) fn regressor(
        attributes: Attributes<'_>,
        columns: usize,
        kind: Kind,
    ) -> Result<Self, Problem> {
        let targets = attributes.int("n_targets", 1);
        let scores = usize::try_from(targets).ok().filter(|n| *n > 0);
        let scores = scores.ok_or_else(|| corrupt(format!("`n_targets` is {targets}")))?;
        let transform = Transform::parse(attributes.text("post_transform", "NONE")?)?;
        if scores == 1 && !matches!(transform, Transform::None | Transform::Probit) {
            return Err(unsupported(format!(
                "`post_transform` {transform:?} of a single target, which ONNX Runtime leaves out"
            )));
        }
        let average = match attributes.text("aggregate_function", "SUM")? {
            "SUM" => false,
            "AVERAGE" => true,
            other => return Err(unsupported(format!("`aggregate_function` {other}"))),
        };
        let found = Ensemble::read(attributes, "target", scores, kind)?;
        let base = base(attributes, scores)?;
        let always = found.always();
        let sometimes = |(score, base): (usize, &f64)| *base != 0.0 && !always.contains(&score);
        if scores > 1 && base.iter().enumerate().any(sometimes) {
            return Err(unsupported(
                "`base_values` of a target that some leaves leave out, which ONNX Runtime then leaves out, too",
            ));
        }
        let divisor = average.then_some(found.trees.len() as f64);
        Ok(Self {
            forest: found.build(columns, scores)?,
            scores,
            base,
            divisor,
            kind,
            answer: Answer::All,
            transform,
            labels: None,
        })
    }

    pub(super) fn classifier(
        attributes: Attributes<'_>,
        columns: usize,
        kind: Kind,
    ) -> Result<Self, Problem> {
        let mut labels = Labels::read(attributes)?;
        let classes = labels.names.len();
        if classes < 2 {
            return Err(unsupported(format!("A classifier of {classes} classes")));
        }
        let transform = Transform::parse(attributes.text("post_transform", "NONE")?)?;
        let found = Ensemble::read(attributes, "class", classes, kind)?;
        let (mut scores, mut answer) = (classes, Answer::All);
        if classes == 2 {
            let bound = if found.negative { 0.0 } else { 0.5 };
            let named: Vec<usize> = found.named.iter().copied().collect();
            match named.as_slice() {
                [1] => labels.rule = Rule::Above(1, bound),
                [0] | [] => {
                    (scores, labels.rule) = (1, Rule::Above(0, bound));
                    answer = if found.negative {
                        Answer::Opposite
                    } else {
                        Answer::Rest
                    };
                    if transform == Transform::Probit {
                        return Err(unsupported(
                            "`post_transform` PROBIT of one score for two classes",
                        ));
                    }
                }
                _ => {}
            }
            if scores == 2 && attributes.has("base_values") {
                return Err(unsupported(
                    "`base_values` of two classes that have scores of their own, which ONNX Runtime adds to one of them",
                ));
            }
        }
        Ok(Self {
            base: base(attributes, scores)?,
            forest: found.build(columns, scores)?,
            scores,
            divisor: None,
            kind,
            answer,
            transform,
            labels: Some(labels),
        })
    }
}

fn base(attributes: Attributes<'_>, scores: usize) -> Result<Vec<f64>, Problem> {
    let (base, _) = attributes.numbers("base_values")?;
    if base.is_empty() || base.len() == scores {
        return Ok(base);
    }
    Err(corrupt(format!(
        "It has {} `base_values` for {scores} scores",
        base.len()
    )))
}
