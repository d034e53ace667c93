//! Aggregate functions as they are written, read into what `aggregate` runs.

use headwater_aggregate::{
    Aggregate, CATEGORIES_MAX_DEFAULT, EXACT_UP_TO_DEFAULT, QUANTILE_WHOLE, Quantiles,
};
use headwater_schema::{Micros, Problem};

use crate::catalog::unknown;
use crate::definition::{FeatureSpec, Nulls, QuantileSpec};
use crate::window::{LIST_MAX, count, duration};

/// The most distinct values that are counted exactly, categories that are told apart, and values
/// that a quantile keeps.
pub const DISTINCT_MAX: usize = 100_000;
/// The most quantiles of one feature.
const QUANTILES_MAX: usize = 100;
/// A half-life below a millisecond is refused.
const HALF_LIFE_MIN: Micros = 1000;

const FUNCTIONS: [&str; 28] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "first",
    "last",
    "first_n",
    "last_n",
    "variance",
    "stddev",
    "skew",
    "kurtosis",
    "distinct_count",
    "distinct_n",
    "quantile",
    "top_n",
    "bottom_n",
    "min_by",
    "max_by",
    "histogram",
    "top_values",
    "decayed_sum",
    "decayed_count",
    "decayed_avg",
    "rate",
    "time_since_first",
    "time_since_last",
];
/// Names from elsewhere, and what to write here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("median", "`aggregate: quantile` with `quantile: 0.5`"),
    (
        "percentile",
        "`aggregate: quantile`, as in `quantile: 0.95`",
    ),
    ("mode", "`aggregate: top_values` with `n: 1`"),
    ("mean", "`aggregate: avg`"),
    ("average", "`aggregate: avg`"),
    ("std", "`aggregate: stddev`"),
    ("stddev_samp", "`aggregate: stddev` with `sample: true`"),
    ("var_samp", "`aggregate: variance` with `sample: true`"),
    ("count_distinct", "`aggregate: distinct_count`"),
    ("approx_count_distinct", "`aggregate: distinct_count`"),
    ("last_distinct_n", "`aggregate: distinct_n`"),
    ("unique", "`aggregate: distinct_n`, or `distinct_count`"),
];

/// Reads the aggregate function of a feature.
pub fn read_function(name: &str, spec: &FeatureSpec) -> Result<Aggregate, Problem> {
    let keep_nulls = spec.nulls == Some(Nulls::Keep);
    let sample = spec.sample.unwrap_or(false);
    let n = || {
        let n = spec
            .n
            .ok_or_else(|| needs(name, "n", "how many values to list, as in `n: 5`"));
        count("n", n?, LIST_MAX)
    };
    let exact_up_to = || {
        let exact_up_to = spec.exact_up_to.unwrap_or(EXACT_UP_TO_DEFAULT);
        count("exact_up_to", exact_up_to, DISTINCT_MAX)
    };
    let half_life = || read_half_life(name, spec);
    let function = match name {
        "count" => Aggregate::Count,
        "sum" => Aggregate::Sum,
        "avg" => Aggregate::Avg,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "first" => Aggregate::First { keep_nulls },
        "last" => Aggregate::Last { keep_nulls },
        "first_n" | "last_n" => read_list(name, n()?, keep_nulls),
        "variance" => Aggregate::Variance { sample },
        "stddev" => Aggregate::Stddev { sample },
        "skew" => Aggregate::Skew { sample },
        "kurtosis" => Aggregate::Kurtosis { sample },
        "distinct_count" => Aggregate::DistinctCount {
            exact_up_to: exact_up_to()?,
        },
        "distinct_n" => Aggregate::DistinctN { n: n()? },
        "quantile" => Aggregate::Quantile {
            at: read_quantiles(name, spec)?,
            exact_up_to: exact_up_to()?,
        },
        "top_n" => Aggregate::TopN { n: n()? },
        "bottom_n" => Aggregate::BottomN { n: n()? },
        "min_by" => Aggregate::MinBy,
        "max_by" => Aggregate::MaxBy,
        "histogram" => Aggregate::Histogram {
            n: spec.n.map(|n| count("n", n, DISTINCT_MAX)).transpose()?,
            categories_max: categories_max(spec)?,
        },
        "top_values" => Aggregate::TopValues {
            n: n()?,
            categories_max: categories_max(spec)?,
        },
        "decayed_sum" => Aggregate::DecayedSum {
            half_life: half_life()?,
        },
        "decayed_count" => Aggregate::DecayedCount {
            half_life: half_life()?,
        },
        "decayed_avg" => Aggregate::DecayedAvg {
            half_life: half_life()?,
        },
        "rate" => Aggregate::Rate,
        "time_since_first" => Aggregate::TimeSinceFirst,
        "time_since_last" => Aggregate::TimeSinceLast,
        other => return Err(unknown_function(other)),
    };
    refuse_unused(name, &function, spec)?;
    Ok(function)
}

fn read_list(name: &str, n: usize, keep_nulls: bool) -> Aggregate {
    match name {
        "first_n" => Aggregate::FirstN { n, keep_nulls },
        _ => Aggregate::LastN { n, keep_nulls },
    }
}

fn unknown_function(name: &str) -> Problem {
    let mut problem = unknown("function", "aggregate", name, FUNCTIONS.into_iter());
    problem.code = "unknown-aggregate";
    match ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == name) {
        Some((_, here)) => problem.hint(format!("write {here}")),
        None => problem,
    }
}

fn needs(name: &str, key: &str, what: &str) -> Problem {
    Problem::user("invalid-feature", format!("`{name}` needs `{key}`"))
        .field(key)
        .hint(format!("write {what}"))
}

/// How many categories a feature tells apart.
pub fn categories_max(spec: &FeatureSpec) -> Result<usize, Problem> {
    let categories = spec.max_categories.unwrap_or(CATEGORIES_MAX_DEFAULT);
    count("max_categories", categories, DISTINCT_MAX)
}

fn read_half_life(name: &str, spec: &FeatureSpec) -> Result<Micros, Problem> {
    let text = spec.half_life.as_deref().ok_or_else(|| {
        let what = "after how long a fact weighs half, as in `half_life: 6h`";
        needs(name, "half_life", what)
    })?;
    let half_life = duration(text).map_err(|p| p.field("half_life"))?;
    if half_life < HALF_LIFE_MIN {
        return Err(
            Problem::user("invalid-feature", format!("`half_life` is {text}"))
                .field("half_life")
                .hint("make it at least 1ms"),
        );
    }
    Ok(half_life)
}

fn read_quantiles(name: &str, spec: &FeatureSpec) -> Result<Quantiles, Problem> {
    match &spec.quantile {
        None => {
            let what = "which one, as in `quantile: 0.5`, or a list";
            Err(needs(name, "quantile", what))
        }
        Some(QuantileSpec::One(one)) => billionths(*one).map(Quantiles::One),
        Some(QuantileSpec::Many(all)) => {
            count("quantile", all.len(), QUANTILES_MAX).map_err(|p| p.field("quantile"))?;
            let all: Result<Vec<u32>, Problem> = all.iter().map(|q| billionths(*q)).collect();
            Ok(Quantiles::Many(all?.into()))
        }
    }
}

/// A quantile in billionths: as it is written, in decimals, and not as the float next to it.
fn billionths(quantile: f64) -> Result<u32, Problem> {
    let text = quantile.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction:0<9}");
    let parsed = digits.parse::<u32>().ok().filter(|v| *v <= QUANTILE_WHOLE);
    parsed.filter(|_| fraction.len() <= 9).ok_or_else(|| {
        Problem::user("invalid-feature", format!("`{text}` is no quantile"))
            .field("quantile")
            .hint("it is between 0 and 1, with at most nine digits after the point")
    })
}

/// A parameter that the function doesn't read is a mistake, not a no-op.
fn refuse_unused(name: &str, function: &Aggregate, spec: &FeatureSpec) -> Result<(), Problem> {
    use Aggregate as A;
    let ordered = matches!(
        function,
        A::First { .. } | A::Last { .. } | A::FirstN { .. } | A::LastN { .. }
    );
    let samples = matches!(
        function,
        A::Variance { .. } | A::Stddev { .. } | A::Skew { .. } | A::Kurtosis { .. }
    );
    let decays = matches!(
        function,
        A::DecayedSum { .. } | A::DecayedCount { .. } | A::DecayedAvg { .. }
    );
    let estimates = function.error_bound().is_some();
    let quantile = matches!(function, A::Quantile { .. });
    let counts_values = matches!(function, A::Histogram { .. } | A::TopValues { .. });
    let takes_apart = spec.by.is_some() || spec.unnest == Some(true);
    let unused = [
        ("n", spec.n.is_some() && !function.takes_n() && !takes_apart),
        ("nulls", spec.nulls.is_some() && !ordered),
        ("sample", spec.sample.is_some() && !samples),
        ("exact_up_to", spec.exact_up_to.is_some() && !estimates),
        (
            "max_categories",
            spec.max_categories.is_some() && !counts_values && !takes_apart,
        ),
        ("quantile", spec.quantile.is_some() && !quantile),
        ("half_life", spec.half_life.is_some() && !decays),
        (
            "order_by",
            spec.order_by.is_some() && !function.needs_order(),
        ),
    ];
    match unused.iter().find(|(_, wrong)| *wrong) {
        Some((key, _)) => Err(
            Problem::user("invalid-feature", format!("`{name}` has no `{key}`"))
                .field(*key)
                .hint("leave it out"),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::billionths;

    #[test]
    fn quantiles_are_what_is_written() {
        for (written, want) in [
            (0.0, 0),
            (0.5, 500_000_000),
            (0.95, 950_000_000),
            (1.0, 1_000_000_000),
            (1e-9, 1),
        ] {
            assert_eq!(billionths(written).unwrap(), want);
        }
        for wrong in [-0.1, 1.1, 1e-10, f64::NAN, 1e300] {
            assert!(billionths(wrong).is_err(), "{wrong}");
        }
    }
}
