//! Linear models: a sum of inputs times coefficients, and a link function. Read from a small JSON file that any package's
//! coefficients can be written to (`docs/models.md`), or from XGBoost's gblinear.

use headwater_schema::Problem;

use crate::document::Document;
use crate::limits::{INPUTS_MAX, NAME_BYTES_MAX, SCORES_MAX, at_most};
use crate::link::Link;
use crate::load::{corrupt, unsupported};
use crate::predictor::{check_buffer, check_shape};
use crate::{Input, ModelContract, Output, Predictor, Rows, Task};

/// What `format` says in a file.
pub(crate) const FORMAT: &str = "headwater-linear/1";

#[derive(Debug)]
pub(crate) struct LinearModel {
    pub(crate) contract: ModelContract,
    /// For each input one for each score.
    pub(crate) coefficients: Vec<f64>,
    pub(crate) intercepts: Vec<f64>,
    /// What stands for a missing input; NaN where nothing does, which makes the scores NaN.
    pub(crate) fills: Vec<f64>,
    /// Computes with floats, as XGBoost does.
    pub(crate) single: bool,
    pub(crate) link: Link,
}

impl LinearModel {
    fn input(&self, column: usize, value: f64) -> f64 {
        if value.is_nan() {
            self.fills[column]
        } else {
            value
        }
    }

    /// `sum + value · coefficient`.
    fn add(&self, sum: f64, value: f64, coefficient: f64) -> f64 {
        if self.single {
            f64::from(sum as f32 + value as f32 * coefficient as f32)
        } else {
            sum + value * coefficient
        }
    }
}

impl Predictor for LinearModel {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let scores = self.contract.scores;
        check_shape(&self.contract, rows, out, scores)?;
        for (index, sums) in out.chunks_exact_mut(scores).enumerate() {
            sums.copy_from_slice(&self.intercepts);
            let coefficients = self.coefficients.chunks_exact(scores);
            for ((column, value), coefficients) in
                rows.row(index).iter().enumerate().zip(coefficients)
            {
                let value = self.input(column, *value);
                for (sum, coefficient) in sums.iter_mut().zip(coefficients) {
                    *sum = self.add(*sum, value, *coefficient);
                }
            }
        }
        Ok(())
    }

    fn outputs(&self, scores: &[f64], out: &mut [f64]) -> Result<(), Problem> {
        let (from, to) = (self.contract.scores, self.contract.output_width());
        check_buffer(scores.len() / from, scores, from)?;
        check_buffer(scores.len() / from, out, to)?;
        for (scores, out) in scores.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
            self.link.apply(scores, 1.0, out);
        }
        Ok(())
    }

    fn contributions(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let (inputs, scores) = (self.contract.inputs.len(), self.contract.scores);
        let stride = inputs + 1;
        check_shape(&self.contract, rows, out, scores * stride)?;
        for (index, phi) in out.chunks_exact_mut(scores * stride).enumerate() {
            for (score, phi) in phi.chunks_exact_mut(stride).enumerate() {
                for (column, value) in rows.row(index).iter().enumerate() {
                    let coefficient = self.coefficients[column * scores + score];
                    phi[column] = self.add(0.0, self.input(column, *value), coefficient);
                }
                phi[inputs] = self.intercepts[score];
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        (self.coefficients.len() + self.intercepts.len() + self.fills.len()) * size_of::<f64>()
    }
}

pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4096)];
    let found = |word: &[u8]| start.windows(word.len()).any(|w| w == word);
    start.trim_ascii_start().starts_with(b"{") && found(b"headwater-linear/")
}

pub(crate) fn load(bytes: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
    let document = Document::from_json(bytes)?;
    let format = document.text("format")?;
    if format != FORMAT {
        return Err(unsupported(format!(
            "The format `{format}`; `{FORMAT}` is read"
        )));
    }
    let rows = coefficients(&document)?;
    let scores = rows.len();
    at_most("scores", scores, SCORES_MAX)?;
    let (task, link, output) = link(&document, scores)?;
    let inputs = document.list("inputs")?;
    at_most("inputs", inputs.len(), INPUTS_MAX)?;
    let intercepts = document.numbers("intercepts")?;
    if scores == 0
        || intercepts.len() != scores
        || rows.iter().any(|r| r.len() != inputs.len())
        || inputs.is_empty()
    {
        return Err(corrupt(format!(
            "It has {} inputs, {scores} rows of coefficients and {} intercepts, which don't fit each other",
            inputs.len(),
            intercepts.len()
        )));
    }
    let mut model = LinearModel {
        contract: ModelContract {
            inputs: Vec::with_capacity(inputs.len()),
            task,
            scores,
            outputs: vec![Output::new(output, link.width(scores))],
            classes: classes(&document)?,
            contributions: Ok(()),
        },
        coefficients: vec![0.0; inputs.len() * scores],
        intercepts: intercepts.to_vec(),
        fills: Vec::with_capacity(inputs.len()),
        single: false,
        link,
    };
    for (column, input) in inputs.iter().enumerate() {
        model.add_input(column, input, &rows)?;
    }
    Ok(Box::new(model))
}

impl LinearModel {
    /// An input's mean and scale are folded into coefficients and intercepts: `(x − mean) / scale · c`.
    fn add_input(
        &mut self,
        column: usize,
        input: &Document,
        rows: &[&[f64]],
    ) -> Result<(), Problem> {
        let name = match input {
            Document::Text(name) => name.as_str(),
            _ => input.text("name")?,
        };
        at_most("bytes in a name", name.len(), NAME_BYTES_MAX)?;
        self.contract.inputs.push(Input::numeric(name));
        let optional =
            |key: &str, default: f64| input.find(key).map_or(Ok(default), |_| input.number(key));
        let (mean, scale) = (optional("mean", 0.0)?, optional("scale", 1.0)?);
        if scale == 0.0 || !scale.is_finite() || !mean.is_finite() {
            return Err(corrupt(format!(
                "Its input `{name}` has mean {mean} and scale {scale}"
            )));
        }
        self.fills.push(optional("missing", f64::NAN)?);
        let scores = self.contract.scores;
        for (score, row) in rows.iter().enumerate() {
            let coefficient = row[column] / scale;
            self.coefficients[column * scores + score] = coefficient;
            self.intercepts[score] -= mean * coefficient;
        }
        Ok(())
    }
}

/// One row for each score; a model with one score may leave the outer list out.
fn coefficients(document: &Document) -> Result<Vec<&[f64]>, Problem> {
    if let Ok(row) = document.numbers("coefficients") {
        return Ok(vec![row]);
    }
    let rows = document.list("coefficients")?.iter();
    rows.map(|row| match row {
        Document::Numbers(row) => Ok(row.as_slice()),
        _ => Err(corrupt("`coefficients` isn't a list of rows of numbers")),
    })
    .collect()
}

fn classes(document: &Document) -> Result<Vec<String>, Problem> {
    let listed = document
        .find("classes")
        .map_or(Ok(Vec::new()), |_| document.texts("classes"))?;
    Ok(listed.into_iter().map(str::to_owned).collect())
}

fn link(document: &Document, scores: usize) -> Result<(Task, Link, &'static str), Problem> {
    let name = document
        .find("link")
        .map_or(Ok("identity"), |_| document.text("link"))?;
    Ok(match name {
        "identity" => (Task::Regression, Link::Identity, "value"),
        "log" => (Task::Regression, Link::Exp, "value"),
        "logit" if scores == 1 => (Task::Binary, Link::Sigmoid(1.0), "probability"),
        "logit" => (Task::Multiclass, Link::Sigmoid(1.0), "probabilities"),
        "softmax" if scores > 1 => (Task::Multiclass, Link::Softmax, "probabilities"),
        _ => {
            return Err(unsupported(format!(
                "The link `{name}` with {scores} scores; there are identity, log, logit and softmax"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::{LoadOptions, Rows, load};

    const MODEL: &str = include_str!("linear_small.json");

    #[test]
    fn standardised_inputs_add_up() {
        let model = load(MODEL.as_bytes(), &LoadOptions::default()).unwrap();
        let rows = [1.0, 60.0, 1.0, f64::NAN, f64::NAN, 60.0];
        let rows = Rows::new(&rows, 2).unwrap();
        let scores = model.predict(rows).unwrap().scores;
        assert_eq!(scores[..2], [0.5, 2.5]);
        assert!(scores[2].is_nan());
        assert_eq!(model.explain(rows).unwrap()[..3], [2.0, -6.0, 4.5]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let code = |text: &str| {
            load(text.as_bytes(), &LoadOptions::default())
                .unwrap_err()
                .code
        };
        assert_eq!(
            code(&MODEL.replace("[2.0, -1.0]", "[2.0]")),
            "model-corrupt"
        );
        assert_eq!(code(&MODEL.replace("logit", "probit")), "model-unsupported");
        assert_eq!(
            code(&MODEL.replace("linear/1", "linear/2")),
            "model-unsupported"
        );
        assert_eq!(
            code(&MODEL.replace("\"scale\": 10", "\"scale\": 0")),
            "model-corrupt"
        );
    }
}
