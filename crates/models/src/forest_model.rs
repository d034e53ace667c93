//! A forest with its contract and its link function: the predictor of all tree formats.

use headwater_schema::Problem;

use crate::forest::Forest;
use crate::link::Link;
use crate::predictor::{check_buffer, check_shape};
use crate::{ModelContract, Predictor, Rows};

#[derive(Debug)]
pub(crate) struct ForestModel {
    pub(crate) contract: ModelContract,
    pub(crate) forest: Forest,
    pub(crate) link: Link,
    /// Scores are divided by it before the link function: the number of iterations of a random forest, or one.
    pub(crate) divisor: f64,
}

impl ForestModel {
    pub(crate) fn new(contract: ModelContract, forest: Forest, link: Link) -> Self {
        Self {
            contract,
            forest,
            link,
            divisor: 1.0,
        }
    }
}

impl Predictor for ForestModel {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        check_shape(&self.contract, rows, out, self.contract.scores)?;
        self.forest.score(rows, out);
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
        let width = self.contract.scores * (self.contract.inputs.len() + 1);
        check_shape(&self.contract, rows, out, width)?;
        self.forest.explain(rows, out);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.forest.memory_bytes()
    }
}
