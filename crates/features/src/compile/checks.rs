//! What a feature may say, and what it may not.

use headwater_aggregate::{Aggregate, Spread, Window};
use headwater_schema::{DataType, Micros, Problem};

use crate::definition::FeatureSpec;
use crate::window::duration;

pub fn read_ttl(text: &str) -> Result<Micros, Problem> {
    match duration(text)? {
        0 => Err(Problem::user("invalid-duration", "`ttl` is zero")
            .hint("leave it out: without it a value of any age is taken")),
        ttl => Ok(ttl),
    }
}

/// How a feature takes values apart.
pub fn read_spread(spec: &FeatureSpec, input: Option<&DataType>) -> Result<Spread, Problem> {
    match (spec.unnest == Some(true), spec.element_wise == Some(true)) {
        (true, true) => Err(Problem::user(
            "invalid-feature",
            "a feature is `unnest`ed or `element_wise`, not both",
        )
        .field("element_wise")),
        (true, false) => Ok(match input {
            Some(DataType::Map(_)) => Spread::Entries,
            _ => Spread::Elements,
        }),
        (false, true) => Ok(Spread::Positions),
        (false, false) => Ok(Spread::Whole),
    }
}

/// `n` keeps the categories with the largest results, so there have to be both.
pub fn refuse_unordered(aggregate: &str, grouped: bool, result: &DataType) -> Result<(), Problem> {
    let ordered = matches!(result, DataType::Map(value) if value.is_ordered());
    if grouped && ordered {
        return Ok(());
    }
    let problem = Problem::user("invalid-feature", format!("`{aggregate}` has no `n`")).field("n");
    Err(match grouped {
        true => problem.detail(format!(
            "its result is {result}, whose values have no order"
        )),
        false => problem.hint("leave it out"),
    })
}

/// A rate is counted over a width.
pub fn refuse_widthless(function: &Aggregate, window: &Window) -> Result<(), Problem> {
    if *function == Aggregate::Rate && window.width().is_none() {
        return Err(
            Problem::user("invalid-feature", "`rate` needs a window with a width")
                .field("windows")
                .hint("write a width such as `24h`"),
        );
    }
    Ok(())
}

/// Refuses what only aggregates have, and more.
pub fn refuse_stray(
    spec: &FeatureSpec,
    more: &[(&'static str, bool)],
    what: &str,
    hint: &str,
) -> Result<(), Problem> {
    let of_aggregates = [
        ("windows", spec.windows.is_some()),
        ("n", spec.n.is_some()),
        ("sample", spec.sample.is_some()),
        ("nulls", spec.nulls.is_some()),
        ("exact_up_to", spec.exact_up_to.is_some()),
        ("max_categories", spec.max_categories.is_some()),
        ("by", spec.by.is_some()),
        ("order_by", spec.order_by.is_some()),
        ("quantile", spec.quantile.is_some()),
        ("half_life", spec.half_life.is_some()),
        ("unnest", spec.unnest.is_some()),
        ("element_wise", spec.element_wise.is_some()),
    ];
    let mut stray = more.iter().chain(&of_aggregates);
    match stray.find(|(_, given)| *given) {
        Some((key, _)) => Err(
            Problem::user("invalid-feature", format!("{what} has no `{key}`"))
                .field(*key)
                .hint(hint),
        ),
        None => Ok(()),
    }
}
