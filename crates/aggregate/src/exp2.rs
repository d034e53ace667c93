//! `2^(r/h)` rounded to the nearest float, from integers alone, so that every machine agrees.
//!
//! The fast way works in 126 binary places and knows its error; where that can't tell which float is nearer, the
//! power is worked out again with as many places as it takes. It is irrational, so that ends.

use num_bigint::BigUint;
use num_traits::{One, ToPrimitive};

/// Binary places of the fast way: a value below two fits 127 bits.
const PLACES: u32 = 126;
/// `ln 2` in 128 binary places, rounded down.
const LN_2: u128 = 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF;
/// Terms of the series of `e^y` for `y < ln 2`: the rest is below `2^−126`.
const TERMS: usize = 28;
/// `1/n!` in [`PLACES`] binary places.
const INVERSE_FACTORIALS: [u128; TERMS] = {
    let mut all = [1 << PLACES; TERMS];
    let mut n = 1;
    while n < TERMS {
        all[n] = all[n - 1] / n as u128;
        n += 1;
    }
    all
};
/// A bound of the error of the fast way, in units of its last place: each term rounds down once.
const ERROR: u128 = 1 << 10;

/// `2^(r/h) × 2^52` for `r < h`, rounded to nearest: the mantissa of a float between one and two.
pub fn exp2_fraction(r: u64, h: u64) -> u64 {
    if r == 0 || r >= h {
        return 1 << 52;
    }
    // r/h in 128 binary places.
    let (r, h) = (u128::from(r), u128::from(h));
    let high = (r << 64) / h;
    let low = (((r << 64) % h) << 64) / h;
    let exponent = (high << 64) | low;
    let y = multiply_high(exponent, LN_2) >> (128 - PLACES);
    let mut sum = 0;
    for factor in INVERSE_FACTORIALS.iter().rev() {
        sum = factor + multiply(sum, y);
    }
    rounded(sum, PLACES, ERROR).unwrap_or_else(|| {
        let (r, h) = (r as u64, h as u64);
        let mut places = 256;
        loop {
            if let Some(nearest) = rounded_big(&slow(r, h, places), places) {
                return nearest;
            }
            places *= 2;
        }
    })
}

/// Rounds to 52 binary places; none where `error` could turn it.
fn rounded(value: u128, places: u32, error: u128) -> Option<u64> {
    let dropped = places - 52;
    let half = 1u128 << (dropped - 1);
    let rest = value & ((1 << dropped) - 1);
    (rest.abs_diff(half) > error).then(|| (value >> dropped) as u64 + u64::from(rest > half))
}

fn rounded_big(value: &BigUint, places: u32) -> Option<u64> {
    // The error is below two units of the last place for each of the `places` factors.
    let guarded = value >> (places - PLACES) as u64;
    rounded(guarded.to_u128()?, PLACES, 2)
}

/// `2^(r/h)` in `places` binary places: the product of `2^(1/2)`, `2^(1/4)`, … for the binary digits of r/h.
pub fn slow(r: u64, h: u64, places: u32) -> BigUint {
    let (mut rest, h) = (BigUint::from(r), BigUint::from(h));
    let mut product = BigUint::one() << places;
    let mut root = BigUint::from(2u8) << places;
    for _ in 0..places {
        root = (root << places).sqrt();
        rest <<= 1;
        if rest >= h {
            rest -= &h;
            product = (product * &root) >> places;
        }
    }
    product
}

/// The product of two numbers of [`PLACES`] binary places.
fn multiply(a: u128, b: u128) -> u128 {
    let (high, low) = wide(a, b);
    (high << (128 - PLACES)) | (low >> PLACES)
}

fn multiply_high(a: u128, b: u128) -> u128 {
    wide(a, b).0
}

/// The 256 bits of a product: the high and the low half.
fn wide(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a_high, a_low) = (a >> 64, a & LOW);
    let (b_high, b_low) = (b >> 64, b & LOW);
    let low = a_low * b_low;
    let middle = a_low * b_high + (low >> 64);
    let other = a_high * b_low + (middle & LOW);
    let high = a_high * b_high + (middle >> 64) + (other >> 64);
    (high, (other << 64) | (low & LOW))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nearest(r: u64, h: u64) -> u64 {
        let places = 200;
        let value = slow(r, h, places) >> (places - 53) as u64;
        value.to_u64().map(|v| (v + 1) >> 1).expect("53 bits")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_fast_way_is_the_slow_way(h in 2u64..1 << 62, share in 0.0..1.0f64) {
            let r = ((h as f64 * share) as u64).min(h - 1);
            prop_assert_eq!(exp2_fraction(r, h), nearest(r, h));
        }
    }

    #[test]
    fn close_to_what_the_machine_says() {
        for (r, h) in [
            (1u64, 2u64),
            (1, 3),
            (2, 3),
            (999, 1000),
            (1, u64::MAX >> 1),
        ] {
            let got = exp2_fraction(r, h) as f64 / (1u64 << 52) as f64;
            let machine = (r as f64 / h as f64).exp2();
            assert!((got - machine).abs() <= 2.0 * f64::EPSILON, "2^({r}/{h})");
        }
        assert_eq!(exp2_fraction(0, 7), 1 << 52);
    }
}
