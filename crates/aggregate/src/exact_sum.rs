//! Sums of floats and integers without rounding, so that the order of addition can't matter.
//!
//! A sum is `mantissa × 2^exponent`. Values of similar magnitude (nearly all columns) fit an
//! `i128` mantissa; anything wider continues in a big integer. The result is rounded once, to
//! nearest even, when it is read.

use headwater_schema::Value;
use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{Signed, ToPrimitive, Zero};

/// Bits of an `i128` mantissa that may be used before a sum continues in a big integer.
const SMALL_BITS_MAX: u32 = 126;
/// Up to this exponent, a quotient of two numbers of 53 bits times the power of two is a normal float.
const PLAIN_EXPONENT_MAX: u32 = 900;

/// An exact sum of finite floats or integers.
#[derive(Debug, Clone)]
pub struct ExactSum(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Small { mantissa: i128, exponent: i32 },
    Big(Box<(BigInt, i32)>),
}

impl Default for ExactSum {
    fn default() -> Self {
        Self(Repr::Small {
            mantissa: 0,
            exponent: 0,
        })
    }
}

impl ExactSum {
    pub fn add_int(&mut self, value: i128) {
        self.add_scaled(value, 0);
    }

    /// Adds a finite float; the caller has set aside NaN and infinities.
    pub fn add_float(&mut self, value: f64) {
        let (mantissa, exponent) = decompose(value);
        self.add_scaled(i128::from(mantissa), exponent);
    }

    /// Adds `(mantissa × 2^exponent)^power`, exactly.
    pub fn add_power(&mut self, mantissa: i128, exponent: i32, power: u32) {
        let exponent = exponent * power as i32;
        match mantissa.checked_pow(power) {
            Some(raised) if bits(raised) <= SMALL_BITS_MAX => self.add_scaled(raised, exponent),
            _ => self.add_big(&BigInt::from(mantissa).pow(power), exponent),
        }
    }

    /// Takes `(mantissa × 2^exponent)^power` away, exactly.
    pub fn subtract_power(&mut self, mantissa: i128, exponent: i32, power: u32) {
        let exponent = exponent * power as i32;
        match mantissa.checked_pow(power) {
            Some(raised) if bits(raised) <= SMALL_BITS_MAX => self.add_scaled(-raised, exponent),
            _ => self.add_big(&-BigInt::from(mantissa).pow(power), exponent),
        }
    }

    /// Adds `mantissa × factor × 2^exponent`, exactly.
    pub fn add_product(&mut self, mantissa: i128, factor: u64, exponent: i32) {
        match mantissa.checked_mul(i128::from(factor)) {
            Some(product) if bits(product) <= SMALL_BITS_MAX => self.add_scaled(product, exponent),
            _ => self.add_big(&(BigInt::from(mantissa) * factor), exponent),
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.merge_shifted(other, 0);
    }

    /// Takes `other` away, exactly.
    pub fn subtract(&mut self, other: &Self) {
        match &other.0 {
            Repr::Small { mantissa, exponent } => match mantissa.checked_neg() {
                Some(negative) => self.add_scaled(negative, *exponent),
                None => self.add_big(&-BigInt::from(*mantissa), *exponent),
            },
            Repr::Big(big) => self.add_big(&-&big.0, big.1),
        }
    }

    /// Adds `other × 2^shift`, exactly.
    pub fn merge_shifted(&mut self, other: &Self, shift: i32) {
        match &other.0 {
            Repr::Small { mantissa, exponent } => self.add_scaled(*mantissa, *exponent + shift),
            Repr::Big(big) => self.add_big(&big.0, big.1 + shift),
        }
    }

    fn add_scaled(&mut self, addend: i128, addend_exponent: i32) {
        if addend == 0 {
            return;
        }
        if let Repr::Small { mantissa, exponent } = &mut self.0 {
            if addend_exponent == *exponent {
                if let Some(sum) = mantissa.checked_add(addend) {
                    *mantissa = sum;
                    return;
                }
            } else if *mantissa == 0 {
                (*mantissa, *exponent) = (addend, addend_exponent);
                return;
            } else if let Some((sum, common)) =
                add_aligned((*mantissa, *exponent), (addend, addend_exponent))
            {
                (*mantissa, *exponent) = (sum, common);
                return;
            }
        }
        self.add_big(&BigInt::from(addend), addend_exponent);
    }

    fn add_big(&mut self, addend: &BigInt, addend_exponent: i32) {
        let (mantissa, exponent) = self.to_big();
        let common = exponent.min(addend_exponent);
        let sum = (mantissa << (exponent - common) as u32)
            + (addend << (addend_exponent - common) as u32);
        self.0 = Repr::Big(Box::new((sum, common)));
    }

    /// The sum as `mantissa × 2^exponent`.
    pub fn to_big(&self) -> (BigInt, i32) {
        match &self.0 {
            Repr::Small { mantissa, exponent } => (BigInt::from(*mantissa), *exponent),
            Repr::Big(big) => (big.0.clone(), big.1),
        }
    }

    /// A sum from what [`ExactSum::to_big`] gave.
    pub fn from_big(mantissa: BigInt, exponent: i32) -> Self {
        match mantissa.to_i128() {
            Some(small) if bits(small) <= SMALL_BITS_MAX => Self(Repr::Small {
                mantissa: small,
                exponent,
            }),
            _ => Self(Repr::Big(Box::new((mantissa, exponent)))),
        }
    }

    /// The sum of integers, or none where it doesn't fit.
    pub fn to_int(&self) -> Option<i128> {
        match &self.0 {
            Repr::Small {
                mantissa,
                exponent: 0,
            } => Some(*mantissa),
            _ => {
                let (mantissa, exponent) = self.to_big();
                if exponent < 0 {
                    return None;
                }
                (mantissa << exponent as u32).to_i128()
            }
        }
    }

    /// The nearest float, or none beyond the largest.
    pub fn to_float(&self) -> Option<f64> {
        self.divided_by(1)
    }

    /// The float nearest to the sum over `divisor`; none beyond the largest float, or over zero.
    pub fn divided_by(&self, divisor: u64) -> Option<f64> {
        if let Repr::Small { mantissa, exponent } = &self.0
            && mantissa.unsigned_abs() < 1 << 53
            && (1..1 << 53).contains(&divisor)
            && exponent.unsigned_abs() <= PLAIN_EXPONENT_MAX
        {
            // Both are exact as floats, so one division rounds once, and the power of two not at all.
            return Some(*mantissa as f64 / divisor as f64 * power_of_two(i64::from(*exponent)));
        }
        let (mantissa, exponent) = self.to_big();
        ratio_to_float(&mantissa, &BigUint::from(divisor), i64::from(exponent))
    }
}

/// The sum of two scaled integers where it fits an `i128`, with their common exponent.
fn add_aligned(a: (i128, i32), b: (i128, i32)) -> Option<(i128, i32)> {
    let (high, low) = if a.1 > b.1 { (a, b) } else { (b, a) };
    let shift = u32::try_from(high.1 - low.1).ok()?;
    if bits(high.0) + shift > SMALL_BITS_MAX {
        return None;
    }
    Some(((high.0 << shift).checked_add(low.0)?, low.1))
}

fn bits(value: i128) -> u32 {
    128 - value.unsigned_abs().leading_zeros()
}

/// A number as `mantissa × 2^exponent`, a decimal without its scale; none for anything else.
pub fn scaled(value: &Value) -> Option<(i128, i32)> {
    match value {
        Value::Int(v) => Some((i128::from(*v), 0)),
        Value::Float(v) => {
            let (mantissa, exponent) = decompose(*v);
            Some((i128::from(mantissa), exponent))
        }
        Value::Decimal { unscaled, .. } => Some((*unscaled, 0)),
        _ => None,
    }
}

/// A finite float as `mantissa × 2^exponent`: whole numbers with exponent 0, others with an odd mantissa.
fn decompose(value: f64) -> (i64, i32) {
    let whole = value as i64;
    if whole as f64 == value && whole.unsigned_abs() < 1 << 62 {
        return (whole, 0);
    }
    let raw = value.to_bits();
    let biased = ((raw >> 52) & 0x7FF) as i32;
    let fraction = (raw & ((1 << 52) - 1)) as i64;
    let (magnitude, exponent) = match biased {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, biased - 1075),
    };
    let zeros = magnitude.trailing_zeros();
    let magnitude = magnitude >> zeros;
    let mantissa = if value < 0.0 { -magnitude } else { magnitude };
    (mantissa, exponent + zeros as i32)
}

/// The float nearest to `numerator / denominator × 2^exponent`, ties to even.
pub fn ratio_to_float(numerator: &BigInt, denominator: &BigUint, exponent: i64) -> Option<f64> {
    if denominator.is_zero() {
        return None;
    }
    if numerator.is_zero() {
        return Some(0.0);
    }
    // Enough quotient bits for 53, a rounding bit and a remainder that only says "more".
    const QUOTIENT_BITS: i64 = 66;
    let magnitude = numerator.magnitude();
    let shift = QUOTIENT_BITS + denominator.bits() as i64 - magnitude.bits() as i64;
    let (scaled, divisor) = if shift >= 0 {
        (magnitude << shift as u64, denominator.clone())
    } else {
        (magnitude.clone(), denominator << shift.unsigned_abs())
    };
    let quotient = &scaled / &divisor;
    let more = &quotient * &divisor != scaled;
    let exponent = exponent - shift;
    let rounded = round(quotient.to_u128()?, more, exponent)?;
    Some(if numerator.is_negative() {
        -rounded
    } else {
        rounded
    })
}

/// The float nearest to `(mantissa, plus a little if more) × 2^exponent`.
fn round(mantissa: u128, more: bool, exponent: i64) -> Option<f64> {
    if mantissa == 0 {
        return Some(0.0);
    }
    let top = i64::from(127 - mantissa.leading_zeros()) + exponent;
    if top > 1023 {
        return None;
    }
    let last = if top >= -1022 { top - 52 } else { -1074 };
    let dropped = last - exponent;
    let kept = if dropped <= 0 {
        mantissa << dropped.unsigned_abs()
    } else if dropped > 127 {
        0
    } else {
        let kept = mantissa >> dropped;
        let rest = mantissa & ((1 << dropped) - 1);
        let half = 1u128 << (dropped - 1);
        let up = rest > half || (rest == half && (more || kept & 1 == 1));
        kept + u128::from(up)
    };
    let float = kept as f64 * power_of_two(last);
    float.is_finite().then_some(float)
}

fn power_of_two(exponent: i64) -> f64 {
    if exponent >= -1022 {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (exponent + 1074))
    }
}

/// The float nearest to the square root of `numerator / denominator × 2^exponent`, ties to even.
pub fn root_to_float(numerator: &BigUint, denominator: &BigUint, exponent: i64) -> Option<f64> {
    if denominator.is_zero() {
        return None;
    }
    // Twice the bits of a quotient: its root then has enough.
    const SQUARE_BITS: i64 = 134;
    let wanted = SQUARE_BITS + denominator.bits() as i64 - numerator.bits() as i64;
    // An even exponent has a whole root.
    let shift = wanted + (exponent - wanted).rem_euclid(2);
    let (scaled, divisor) = if shift >= 0 {
        (numerator << shift as u64, denominator.clone())
    } else {
        (numerator.clone(), denominator << shift.unsigned_abs())
    };
    let quotient = &scaled / &divisor;
    let root = quotient.sqrt();
    let more = &root * &root != quotient || &quotient * &divisor != scaled;
    round(root.to_u128()?, more, (exponent - shift) / 2)
}

/// The bytes of a big integer with its sign, for storage.
pub fn big_to_bytes(value: &BigInt) -> Vec<u8> {
    value.to_signed_bytes_le()
}

/// The big integer of [`big_to_bytes`].
pub fn big_from_bytes(bytes: &[u8]) -> BigInt {
    if bytes.is_empty() {
        return BigInt::from_biguint(Sign::NoSign, BigUint::zero());
    }
    BigInt::from_signed_bytes_le(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moments::{Shape, variance};
    use num_rational::BigRational;
    use proptest::prelude::*;

    fn rational(value: f64) -> BigRational {
        BigRational::from_float(value).expect("finite")
    }

    fn nearest(value: &BigRational) -> Option<f64> {
        value.to_f64().filter(|v| v.is_finite())
    }

    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()),
            (-1e6..1e6f64),
            (-1000i64..1000).prop_map(|v| v as f64),
            Just(f64::MIN_POSITIVE),
            Just(5e-324),
            Just(f64::MAX),
        ]
    }

    proptest! {
        #[test]
        fn sums_averages_and_variances_are_rounded_once(
            values in proptest::collection::vec(any_finite(), 1..40),
            split in 0usize..40,
        ) {
            let split = split.min(values.len());
            let (mut sum, mut squares) = (ExactSum::default(), ExactSum::default());
            let (mut sum_2, mut squares_2) = (ExactSum::default(), ExactSum::default());
            for (i, v) in values.iter().enumerate() {
                let (sum, squares) = if i < split { (&mut sum, &mut squares) } else { (&mut sum_2, &mut squares_2) };
                sum.add_float(*v);
                let (mantissa, exponent) = decompose(*v);
                squares.add_power(i128::from(mantissa), exponent, 2);
            }
            sum_2.merge(&sum);
            squares_2.merge(&squares);
            let n = values.len() as u64;
            let exact: BigRational = values.iter().map(|v| rational(*v)).sum();
            let exact_squares: BigRational = values.iter().map(|v| rational(*v) * rational(*v)).sum();
            let count = BigRational::from_integer(n.into());
            prop_assert_eq!(sum_2.to_float(), nearest(&exact));
            prop_assert_eq!(sum_2.divided_by(n), nearest(&(&exact / &count)));
            let mean = &exact / &count;
            let population = exact_squares / &count - &mean * &mean;
            let got = variance(n, &[sum_2, squares_2], false, 0);
            prop_assert_eq!(got, Shape::from(nearest(&population)));
        }

        #[test]
        fn integers_sum_exactly(values in proptest::collection::vec(any::<i64>(), 0..50)) {
            let mut sum = ExactSum::default();
            for v in &values {
                sum.add_int(i128::from(*v));
            }
            prop_assert_eq!(sum.to_int(), Some(values.iter().map(|v| i128::from(*v)).sum()));
        }
    }

    #[test]
    fn a_sum_that_cancels_keeps_what_is_small() {
        let mut sum = ExactSum::default();
        for v in [1e300, 1.0, -1e300, 1e-300] {
            sum.add_float(v);
        }
        assert_eq!(sum.to_float(), Some(1.0));
        sum.add_float(-1.0);
        assert_eq!(sum.to_float(), Some(1e-300));
    }
}
