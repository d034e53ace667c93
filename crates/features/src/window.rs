//! Windows and functions as they are written, read into what `aggregate` runs.

use headwater_aggregate::{
    Aggregate, CATEGORIES_MAX_DEFAULT, EXACT_UP_TO_DEFAULT, Window, WindowKind,
};
use headwater_schema::time::Duration;
use headwater_schema::{Micros, Problem};

use crate::catalog::{not_available, unknown};
use crate::definition::{FeatureSpec, Nulls, WindowMap, WindowSpec};

/// A width below a millisecond is refused.
const WIDTH_MIN: Micros = 1000;
/// The most values that `first_n` and `last_n` list, and facts of a `rows` window.
pub const LIST_MAX: usize = 10_000;
/// The most distinct values that are counted exactly, and categories of a histogram.
pub const DISTINCT_MAX: usize = 100_000;

/// A window and the name of its feature.
#[derive(Debug)]
pub struct NamedWindow {
    pub window: Window,
    pub name: String,
}

/// Reads a window; `feature` is the feature's own name.
pub fn read_window(feature: &str, spec: &WindowSpec) -> Result<NamedWindow, Problem> {
    match spec {
        WindowSpec::Width(text) if text == "lifetime" => Ok(NamedWindow {
            window: Window::new(WindowKind::Lifetime),
            name: format!("{feature}_lifetime"),
        }),
        WindowSpec::Width(text) => Ok(NamedWindow {
            window: Window::new(WindowKind::Exact {
                width: width(text)?,
            }),
            name: format!("{feature}_{text}"),
        }),
        WindowSpec::Mode(map) => read_map(feature, map),
    }
}

fn read_map(feature: &str, map: &WindowMap) -> Result<NamedWindow, Problem> {
    let later = [
        ("sawtooth", map.sawtooth.is_some()),
        ("tumbling", map.tumbling.is_some()),
        ("hopping", map.hopping.is_some()),
        ("session", map.session.is_some()),
        ("hop", map.hop.is_some()),
        ("every", map.every.is_some()),
        ("align", map.align.is_some()),
        ("partial", map.partial.is_some()),
    ];
    if let Some((key, _)) = later.iter().find(|(_, given)| *given) {
        return Err(not_available(key, key));
    }
    let mut modes = Vec::new();
    if let Some(text) = &map.exact {
        modes.push((
            WindowKind::Exact {
                width: width(text)?,
            },
            format!("exact_{text}"),
        ));
    }
    if let Some(text) = &map.range {
        modes.push((
            WindowKind::Range {
                width: width(text)?,
            },
            format!("range_{text}"),
        ));
    }
    if let Some(rows) = map.rows {
        modes.push((
            WindowKind::Rows {
                rows: count("rows", rows, LIST_MAX)?,
            },
            format!("rows_{rows}"),
        ));
    }
    if map.lifetime == Some(true) {
        modes.push((WindowKind::Lifetime, "lifetime".to_owned()));
    }
    let [(kind, suffix)] = modes.as_slice() else {
        return Err(
            Problem::user("invalid-window", "a window has exactly one mode")
                .detail(format!("this one has {}", modes.len()))
                .hint("write `24h`, `lifetime`, `{exact: 24h}`, `{range: 24h}` or `{rows: 3}`"),
        );
    };
    let mut window = Window::new(*kind);
    if let Some(text) = &map.offset {
        window.offset = duration(text)?;
    }
    if let Some(limit) = map.limit {
        window.limit = Some(count("limit", limit, LIST_MAX)?);
    }
    let name = map
        .name
        .clone()
        .unwrap_or_else(|| format!("{feature}_{suffix}"));
    Ok(NamedWindow { window, name })
}

fn count(what: &str, n: usize, max: usize) -> Result<usize, Problem> {
    if n == 0 || n > max {
        return Err(Problem::user("invalid-window", format!("`{what}` is {n}"))
            .hint(format!("it is between 1 and {max}")));
    }
    Ok(n)
}

/// A duration of at least zero.
pub fn duration(text: &str) -> Result<Micros, Problem> {
    text.parse::<Duration>().map(|d| d.0).map_err(|e| {
        Problem::user("invalid-duration", format!("`{text}` is no duration"))
            .detail(e)
            .hint("write a whole number and a unit: 250ms, 90s, 5m, 36h, 30d, 2w")
    })
}

fn width(text: &str) -> Result<Micros, Problem> {
    let width = duration(text)?;
    if width < WIDTH_MIN {
        return Err(Problem::user("invalid-window", "the window has no width")
            .detail(format!("it is `{text}` wide"))
            .hint("make it at least 1ms"));
    }
    Ok(width)
}

/// Functions that are planned and not there yet.
const LATER: [&str; 16] = [
    "skew",
    "kurtosis",
    "distinct_n",
    "quantile",
    "top_n",
    "bottom_n",
    "min_by",
    "max_by",
    "top_values",
    "decayed_sum",
    "decayed_count",
    "decayed_avg",
    "rate",
    "median",
    "mode",
    "percentile",
];
const FUNCTIONS: [&str; 15] = [
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
    "distinct_count",
    "histogram",
    "time_since_first",
    "time_since_last",
];

/// Reads the aggregate function of a feature.
pub fn read_function(name: &str, spec: &FeatureSpec) -> Result<Aggregate, Problem> {
    let keep_nulls = spec.nulls == Some(Nulls::Keep);
    let sample = spec.sample.unwrap_or(false);
    let n = || match spec.n {
        Some(n) => count("n", n, LIST_MAX),
        None => Err(
            Problem::user("invalid-feature", format!("`{name}` needs `n`"))
                .hint("write how many values to list, as in `n: 5`"),
        ),
    };
    let function = match name {
        "count" => Aggregate::Count,
        "sum" => Aggregate::Sum,
        "avg" => Aggregate::Avg,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "first" => Aggregate::First { keep_nulls },
        "last" => Aggregate::Last { keep_nulls },
        "first_n" => Aggregate::FirstN {
            n: n()?,
            keep_nulls,
        },
        "last_n" => Aggregate::LastN {
            n: n()?,
            keep_nulls,
        },
        "variance" => Aggregate::Variance { sample },
        "stddev" => Aggregate::Stddev { sample },
        "distinct_count" => {
            let exact_up_to = spec.exact_up_to.unwrap_or(EXACT_UP_TO_DEFAULT);
            Aggregate::DistinctCount {
                exact_up_to: count("exact_up_to", exact_up_to, DISTINCT_MAX)?,
            }
        }
        "histogram" => {
            let categories = spec.max_categories.unwrap_or(CATEGORIES_MAX_DEFAULT);
            Aggregate::Histogram {
                n: spec.n.map(|n| count("n", n, DISTINCT_MAX)).transpose()?,
                categories_max: count("max_categories", categories, DISTINCT_MAX)?,
            }
        }
        "time_since_first" => Aggregate::TimeSinceFirst,
        "time_since_last" => Aggregate::TimeSinceLast,
        later if LATER.contains(&later) => return Err(not_available("aggregate", later)),
        other => {
            let mut problem = unknown("function", "aggregate", other, FUNCTIONS.into_iter());
            problem.code = "unknown-aggregate";
            return Err(problem);
        }
    };
    refuse_unused(name, &function, spec)?;
    Ok(function)
}

/// A parameter that the function doesn't read is a mistake, not a no-op.
fn refuse_unused(name: &str, function: &Aggregate, spec: &FeatureSpec) -> Result<(), Problem> {
    use Aggregate as A;
    let lists = matches!(
        function,
        A::FirstN { .. } | A::LastN { .. } | A::Histogram { .. }
    );
    let ordered = matches!(
        function,
        A::First { .. } | A::Last { .. } | A::FirstN { .. } | A::LastN { .. }
    );
    let unused = [
        ("n", spec.n.is_some() && !lists),
        ("nulls", spec.nulls.is_some() && !ordered),
        (
            "sample",
            spec.sample.is_some() && !matches!(function, A::Variance { .. } | A::Stddev { .. }),
        ),
        (
            "exact_up_to",
            spec.exact_up_to.is_some() && !matches!(function, A::DistinctCount { .. }),
        ),
        (
            "max_categories",
            spec.max_categories.is_some() && !matches!(function, A::Histogram { .. }),
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
