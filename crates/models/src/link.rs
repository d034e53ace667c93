//! Link functions: what a model's objective makes of its raw scores. Each names the objectives that use it.

/// From one row of scores to one row of outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Link {
    /// Squared error, ranking, custom objectives.
    Identity,
    /// LightGBM's `reg_sqrt`: trained on roots, answered as squares with the sign kept.
    SignedSquare,
    /// Log link: Poisson, gamma, Tweedie.
    Exp,
    /// Logistic, each score by itself: binary, one against all, cross entropy. `1 / (1 + exp(−k·x))`.
    Sigmoid(f64),
    /// `exp(x − max) / Σ exp(x − max)`: multiclass.
    Softmax,
    /// `ln(1 + exp(x))`: LightGBM's `cross_entropy_lambda`.
    Softplus,
    /// One above zero, zero otherwise: XGBoost's hinge.
    Step,
    /// The place of the largest score, the first of equals: XGBoost's `multi:softmax`.
    ArgMax,
}

impl Link {
    /// Numbers that come out of `scores` of them.
    pub(crate) fn width(self, scores: usize) -> usize {
        if self == Self::ArgMax { 1 } else { scores }
    }

    /// Of scores divided by `divisor`; `out` has the link's width.
    pub(crate) fn apply(self, scores: &[f64], divisor: f64, out: &mut [f64]) {
        if self == Self::ArgMax {
            out[0] = largest(scores) as f64;
            return;
        }
        for (to, from) in out.iter_mut().zip(scores) {
            *to = from / divisor;
        }
        match self {
            Self::Identity | Self::ArgMax => {}
            Self::Step => each(out, |x| f64::from(u8::from(x > 0.0))),
            Self::SignedSquare => each(out, |x| x.signum() * x * x),
            Self::Exp => each(out, f64::exp),
            Self::Sigmoid(k) => each(out, |x| 1.0 / (1.0 + (-k * x).exp())),
            Self::Softplus => each(out, |x| x.exp().ln_1p()),
            Self::Softmax => softmax(out),
        }
    }
}

fn each(out: &mut [f64], f: impl Fn(f64) -> f64) {
    for x in out {
        *x = f(*x);
    }
}

fn largest(scores: &[f64]) -> usize {
    let mut best = 0;
    for (at, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = at;
        }
    }
    best
}

fn softmax(out: &mut [f64]) {
    let most = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for x in &mut *out {
        *x = (*x - most).exp();
        sum += *x;
    }
    for to in out {
        *to /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(link: Link, scores: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; scores.len()];
        link.apply(scores, 1.0, &mut out);
        out
    }

    #[test]
    fn links_do_not_overflow() {
        assert_eq!(apply(Link::Softmax, &[1e300, 0.0]), [1.0, 0.0]);
        assert_eq!(apply(Link::Softmax, &[2.0, 2.0]), [0.5, 0.5]);
        assert_eq!(
            apply(Link::Sigmoid(1.0), &[-1e300, 0.0, 1e300]),
            [0.0, 0.5, 1.0]
        );
        assert_eq!(apply(Link::SignedSquare, &[-3.0, 0.0]), [-9.0, 0.0]);
        assert_eq!(apply(Link::Step, &[-1.0, 0.0, 0.5]), [0.0, 0.0, 1.0]);
        let mut class = [0.0];
        Link::ArgMax.apply(&[1.0, 3.0, 3.0], 1.0, &mut class);
        assert_eq!(class, [1.0]);
        assert_eq!(apply(Link::Softplus, &[0.0]), [2f64.ln()]);
    }
}
