//! Comparisons of floats as comparisons of doubles: packages that compute with floats round each input first. Since
//! rounding keeps the order, the inputs that pass such a test are all doubles up to one of them.

/// The largest double that, rounded to a float, is at most `bound`.
pub(crate) fn at_most(bound: f32) -> f64 {
    if bound.is_nan() || bound == f32::INFINITY {
        return f64::from(bound);
    }
    // Where floats end, rounding goes on as if there were one more.
    let end = 2f64.powi(128);
    let wide = |x: f32| {
        if x.is_infinite() {
            end.copysign(x.into())
        } else {
            f64::from(x)
        }
    };
    let middle = f64::midpoint(wide(bound), wide(bound.next_up()));
    // Half way goes to the float with an even last bit, which may be either.
    if middle as f32 <= bound {
        middle
    } else {
        middle.next_down()
    }
}

/// The largest double that, rounded to a float, is below `bound`.
pub(crate) fn below(bound: f32) -> f64 {
    at_most(bound.next_down())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_tests_agree(bits: u32, near in -3i64..4, far: u64) {
            let bound = f32::from_bits(bits);
            prop_assume!(!bound.is_nan() && bound != f32::NEG_INFINITY);
            let (most, less) = (at_most(bound), below(bound));
            let nudge = |x: f64| match near {
                0.. => (0..near).fold(x, |x, _| x.next_up()),
                _ => (near..0).fold(x, |x, _| x.next_down()),
            };
            for value in [nudge(most), nudge(less), nudge(f64::from(bound)), f64::from_bits(far), f64::NAN, 0.0, -0.0] {
                prop_assert_eq!(value as f32 <= bound, value <= most, "{} <= {}", value, bound);
                prop_assert_eq!((value as f32) < bound, value <= less, "{} < {}", value, bound);
            }
        }
    }
}
