//! What an operator makes of its scores, in floats and in the order of ONNX Runtime.

use headwater_schema::Problem;

use crate::load::unsupported;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    /// Scores that are nearly zero aren't raised to one.
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub(super) fn parse(name: &str) -> Result<Self, Problem> {
        Ok(match name {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            _ => return Err(unsupported(format!("The transform `{name}` of scores"))),
        })
    }

    /// Of all scores of one row; they are floats.
    pub(super) fn apply(self, scores: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Logistic => each(scores, logistic),
            Self::Probit => each(scores, probit),
            Self::Softmax => softmax(scores, |x, most| (x - most).exp()),
            Self::SoftmaxZero => softmax(scores, |x, most| {
                if x.abs() > 1e-7 {
                    (x - most).exp()
                } else {
                    x * (-most).exp()
                }
            }),
        }
    }
}

fn each(scores: &mut [f64], f: impl Fn(f32) -> f32) {
    for score in scores {
        *score = f64::from(f(*score as f32));
    }
}

/// `1 / (1 + exp(−x))`, of a negative number as one less that of its opposite.
pub(super) fn logistic(x: f32) -> f32 {
    let of_positive = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 {
        1.0 - of_positive
    } else {
        of_positive
    }
}

/// `raised` makes powers of a score and the largest; those of nearly zero aren't counted in the sum by ONNX Runtime.
fn softmax(scores: &mut [f64], raised: impl Fn(f32, f32) -> f32) {
    let singles = || scores.iter().map(|s| *s as f32);
    let most = singles().fold(-f32::MAX, |most, x| if x > most { x } else { most });
    let mut sum = 0_f32;
    for score in &mut *scores {
        let power = raised(*score as f32, most);
        *score = f64::from(power);
        sum += power;
    }
    each(scores, |x| x / sum);
}

/// π, as ONNX Runtime has it here.
#[expect(clippy::approx_constant, reason = "a better one would give others")]
const PI: f32 = 3.14159;

/// The normal distribution's quantile, by Winitzki's formula for the inverse of the error function.
fn probit(x: f32) -> f32 {
    let x = 2.0 * x - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (PI * 0.147) + 0.5 * log;
    let root = (half * half - 1.0 / 0.147 * log).sqrt() - half;
    std::f32::consts::SQRT_2 * (sign * root.sqrt())
}
