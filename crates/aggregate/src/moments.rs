//! Variance, skew and kurtosis from exact sums of powers, each rounded once.
//!
//! With `Sₚ = Σ xᵖ` the central sums `n²·m₂ = n·S₂ − S₁²`, `n³·m₃ = n²·S₃ − 3n·S₁S₂ + 2S₁³` and
//! `n⁴·m₄ = n³·S₄ − 4n²·S₁S₃ + 6n·S₁²S₂ − 3S₁⁴` are exact integers times a power of two; skew is `m₃ / m₂^1.5`,
//! excess kurtosis `m₄ / m₂² − 3`, and the sample forms are Joanes and Gill's G₁ and G₂ ("Comparing measures of
//! sample skewness and kurtosis", 1998).

use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{Signed, Zero};

use crate::exact_sum::{ExactSum, ratio_to_float, root_to_float};

/// What a measure of the shape of values is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Is(f64),
    /// Too few values.
    TooFew,
    /// All values are equal: 0/0.
    Undefined,
    /// It is larger than any float.
    Overflow,
}

impl From<Option<f64>> for Shape {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::Overflow, Self::Is)
    }
}

/// Sums of powers as integers: the sum of power `p` is `sums[p − 1] × 2^(p·exponent)`.
struct Powers {
    count: u64,
    sums: Vec<BigInt>,
    exponent: i64,
}

impl Powers {
    /// Aligns the sums of the first `order` powers.
    fn new(count: u64, sums: &[ExactSum], order: usize) -> Self {
        let sums: Vec<(BigInt, i32)> = sums.iter().take(order).map(ExactSum::to_big).collect();
        let exponents = sums.iter().zip(1i64..);
        let exponent = exponents
            .map(|((_, e), power)| i64::from(*e).div_euclid(power))
            .min()
            .unwrap_or(0);
        let aligned = sums.into_iter().zip(1i64..);
        Self {
            count,
            sums: aligned
                .map(|((mantissa, e), power)| mantissa << (i64::from(e) - power * exponent) as u64)
                .collect(),
            exponent,
        }
    }

    /// `n²·m₂`, in units of `2^(2·exponent)`.
    fn second(&self) -> BigUint {
        let [s1, s2, ..] = self.sums.as_slice() else {
            return BigUint::zero();
        };
        // It is a sum of squares and never negative.
        (s2 * self.count - s1 * s1).magnitude().clone()
    }

    /// `n³·m₃`, in units of `2^(3·exponent)`.
    fn third(&self) -> BigInt {
        let [s1, s2, s3, ..] = self.sums.as_slice() else {
            return BigInt::zero();
        };
        let n = BigInt::from(self.count);
        s3 * &n * &n - s1 * s2 * &n * 3 + s1 * s1 * s1 * 2
    }

    /// `n⁴·m₄`, in units of `2^(4·exponent)`.
    fn fourth(&self) -> BigInt {
        let [s1, s2, s3, s4] = self.sums.as_slice() else {
            return BigInt::zero();
        };
        let n = BigInt::from(self.count);
        let squared = s1 * s1;
        s4 * &n * &n * &n - s1 * s3 * &n * &n * 4 + &squared * s2 * &n * 6 - &squared * &squared * 3
    }
}

/// The population or sample variance; decimals have `scale` digits after the point.
pub fn variance(count: u64, sums: &[ExactSum], sample: bool, scale: i8) -> Shape {
    let divisor = count.saturating_sub(u64::from(sample));
    if divisor == 0 {
        return Shape::TooFew;
    }
    let powers = Powers::new(count, sums, 2);
    let (mut numerator, mut denominator) = (powers.second(), BigUint::from(count) * divisor);
    let power = BigUint::from(10u8).pow(2 * u32::from(scale.unsigned_abs()));
    if scale > 0 {
        denominator *= power;
    } else {
        numerator *= power;
    }
    ratio_to_float(&numerator.into(), &denominator, 2 * powers.exponent).into()
}

/// The root of [`variance`] as it is given: it is rounded as well.
pub fn stddev(count: u64, sums: &[ExactSum], sample: bool, scale: i8) -> Shape {
    match variance(count, sums, sample, scale) {
        Shape::Is(variance) => Shape::Is(variance.sqrt()),
        other => other,
    }
}

/// The skew, of three values at least. Its square is rational; the root is rounded once.
pub fn skew(count: u64, sums: &[ExactSum], sample: bool) -> Shape {
    if count < 3 {
        return Shape::TooFew;
    }
    let powers = Powers::new(count, sums, 3);
    let (second, third) = (powers.second(), powers.third());
    if second.is_zero() {
        return Shape::Undefined;
    }
    let mut numerator = third.magnitude() * third.magnitude();
    let mut denominator = &second * &second * &second;
    if sample {
        numerator *= BigUint::from(count) * (count - 1);
        denominator *= BigUint::from(count - 2) * (count - 2);
    }
    match root_to_float(&numerator, &denominator, 0) {
        Some(root) if third.is_negative() => Shape::Is(-root),
        other => other.into(),
    }
}

/// The excess kurtosis, of four values at least.
pub fn kurtosis(count: u64, sums: &[ExactSum], sample: bool) -> Shape {
    if count < 4 {
        return Shape::TooFew;
    }
    let powers = Powers::new(count, sums, 4);
    let second = powers.second();
    if second.is_zero() {
        return Shape::Undefined;
    }
    let squared = &second * &second;
    let signed = BigInt::from_biguint(Sign::Plus, squared.clone());
    // g₂ = excess / squared.
    let excess = powers.fourth() - &signed * 3;
    if !sample {
        return ratio_to_float(&excess, &squared, 0).into();
    }
    // G₂ = (n − 1) / ((n − 2)(n − 3)) · ((n + 1)·g₂ + 6).
    let numerator = (excess * (count + 1) + signed * 6) * (count - 1);
    let denominator = squared * (count - 2) * (count - 3);
    ratio_to_float(&numerator, &denominator, 0).into()
}
