//! A forest with its contract and its link function: the predictor of all tree formats.

use headwater_schema::Problem;

use crate::catboost::Ctrs;
use crate::forest::{Forest, Players};
use crate::link::Link;
use crate::predictor::{check_buffer, check_shape};
use crate::{ModelContract, Predictor, Rows};

/// Rows that are widened at a time.
const BLOCK: usize = 64;

#[derive(Debug)]
pub(crate) struct ForestModel {
    pub(crate) contract: ModelContract,
    pub(crate) forest: Forest,
    pub(crate) link: Link,
    /// Scores are divided by it before the link function: the number of iterations of a random forest, or one.
    pub(crate) divisor: f64,
    /// What sums of leaves are multiplied by, and what is added to them.
    pub(crate) affine: Option<Affine>,
    /// More columns, worked out of a row's own.
    pub(crate) ctrs: Option<Ctrs>,
}

#[derive(Debug)]
pub(crate) struct Affine {
    pub(crate) scale: f64,
    /// One for each score.
    pub(crate) bias: Vec<f64>,
}

impl ForestModel {
    pub(crate) fn new(contract: ModelContract, forest: Forest, link: Link) -> Self {
        Self {
            contract,
            forest,
            link,
            divisor: 1.0,
            affine: None,
            ctrs: None,
        }
    }

    /// Hands rows to `each` with all columns that the forest looks at, and the part of `out` that is theirs.
    fn with_columns(
        &self,
        rows: Rows<'_>,
        out: &mut [f64],
        mut each: impl FnMut(Rows<'_>, &mut [f64]),
    ) -> Result<(), Problem> {
        let Some(ctrs) = &self.ctrs else {
            each(rows, out);
            return Ok(());
        };
        let (inputs, columns) = (rows.columns(), rows.columns() + ctrs.len());
        let width = out.len() / rows.len().max(1);
        let mut wide = vec![0.0; columns * BLOCK.min(rows.len())];
        let blocks = rows.values().chunks(BLOCK * inputs);
        for (narrow, out) in blocks.zip(out.chunks_mut(BLOCK * width)) {
            let count = narrow.len() / inputs;
            let both = wide
                .chunks_exact_mut(columns)
                .zip(narrow.chunks_exact(inputs));
            for (wide, narrow) in both {
                wide[..inputs].copy_from_slice(narrow);
                ctrs.fill(wide);
            }
            each(Rows::new(&wide[..count * columns], columns)?, out);
        }
        Ok(())
    }

    /// Who shares in contributions. Statistics of the same inputs are one player.
    fn players(&self) -> (Players, Vec<Vec<usize>>) {
        let inputs = self.contract.inputs.len();
        let mut sources: Vec<Vec<usize>> = (0..inputs).map(|i| vec![i]).collect();
        let mut of_column: Vec<usize> = (0..inputs).collect();
        for made_of in self.ctrs.iter().flat_map(Ctrs::sources) {
            let player = sources.iter().position(|s| *s == made_of);
            of_column.push(player.unwrap_or(sources.len()));
            if player.is_none() {
                sources.push(made_of);
            }
        }
        let players = Players {
            count: sources.len(),
            of_column,
        };
        (players, sources)
    }

    /// Contributions where some columns are worked out of inputs: each input of a combination has an equal part.
    fn explain_combined(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let (players, sources) = self.players();
        let (inputs, scores) = (self.contract.inputs.len(), self.contract.scores);
        let stride = players.count + 1;
        let mut phi = vec![0.0; stride * scores * BLOCK.min(rows.len())];
        self.with_columns(rows, out, |rows, out| {
            let phi = &mut phi[..rows.len() * scores * stride];
            self.forest.explain(rows, &players, phi);
            for (out, phi) in out
                .chunks_exact_mut(inputs + 1)
                .zip(phi.chunks_exact(stride))
            {
                out.fill(0.0);
                out[inputs] = phi[players.count];
                for (value, inputs) in phi.iter().zip(&sources) {
                    for input in inputs {
                        out[*input] += value / inputs.len() as f64;
                    }
                }
            }
        })
    }
}

impl Predictor for ForestModel {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        check_shape(&self.contract, rows, out, self.contract.scores)?;
        self.with_columns(rows, out, |rows, out| self.forest.score(rows, out))?;
        if let Some(affine) = &self.affine {
            for row in out.chunks_exact_mut(self.contract.scores) {
                for (score, bias) in row.iter_mut().zip(&affine.bias) {
                    *score = *score * affine.scale + bias;
                }
            }
        }
        Ok(())
    }

    fn outputs(&self, scores: &[f64], out: &mut [f64]) -> Result<(), Problem> {
        let (from, to) = (self.contract.scores, self.contract.output_width());
        let rows = scores.len() / from;
        check_buffer(rows, scores, from)?;
        check_buffer(rows, out, to)?;
        for (scores, out) in scores.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
            self.link.apply(scores, self.divisor, out);
        }
        Ok(())
    }

    fn contributions(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        if let Err(why) = &self.contract.contributions {
            return Err(
                Problem::user("model-explain", "A model's predictions can't be explained")
                    .detail(why)
                    .hint("Ask without `explain`"),
            );
        }
        let (inputs, scores) = (self.contract.inputs.len(), self.contract.scores);
        check_shape(&self.contract, rows, out, scores * (inputs + 1))?;
        if self.ctrs.is_some() {
            self.explain_combined(rows, out)?;
        } else {
            self.forest.explain(rows, &self.players().0, out);
        }
        let Some(affine) = &self.affine else {
            return Ok(());
        };
        for row in out.chunks_exact_mut(scores * (inputs + 1)) {
            for (phi, bias) in row.chunks_exact_mut(inputs + 1).zip(&affine.bias) {
                phi.iter_mut().for_each(|value| *value *= affine.scale);
                phi[inputs] += bias;
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.forest.memory_bytes() + self.ctrs.as_ref().map_or(0, Ctrs::memory_bytes)
    }
}
