//! Windows as they are written, read into what `aggregate` runs.

use headwater_aggregate::{Grid, Window, WindowKind};
use headwater_schema::time::Duration;
use headwater_schema::{Micros, Problem};

use crate::definition::{WindowMap, WindowSpec};

/// A width below a millisecond is refused.
const WIDTH_MIN: Micros = 1000;
const MINUTE: Micros = 60_000_000;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;
/// The most values that a function lists, and facts of a `rows` window.
pub const LIST_MAX: usize = 10_000;

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

/// The keys of a map that only some modes take.
const MODE_KEYS: [&str; 4] = ["hop", "every", "align", "partial"];

fn read_map(feature: &str, map: &WindowMap) -> Result<NamedWindow, Problem> {
    let (kind, suffix, takes) = read_mode(map)?;
    let given = [
        map.hop.is_some(),
        map.every.is_some(),
        map.align.is_some(),
        map.partial.is_some(),
    ];
    let stray = MODE_KEYS.iter().zip(given);
    if let Some((key, _)) = stray
        .filter(|(_, given)| *given)
        .find(|(key, _)| !takes.contains(key))
    {
        return Err(
            Problem::user("invalid-window", format!("this window takes no `{key}`"))
                .detail(format!("it is `{suffix}`"))
                .hint("`hop` is for sawtooth, `every` for hopping, `partial` for tumbling and hopping, `align` for all three"),
        );
    }
    let mut window = Window::new(kind);
    if let Some(text) = &map.offset {
        window.offset = duration(text)?;
    }
    if let Some(limit) = map.limit {
        if matches!(kind, WindowKind::Rows { .. }) {
            return Err(
                Problem::user("invalid-window", "a window of rows takes no `limit`")
                    .hint("write the smaller number as `rows`"),
            );
        }
        window.limit = Some(count("limit", limit, LIST_MAX)?);
    }
    let name = map
        .name
        .clone()
        .unwrap_or_else(|| format!("{feature}_{suffix}"));
    Ok(NamedWindow { window, name })
}

/// The one mode that a map names: its kind, what a feature's name ends in, and the keys it takes.
fn read_mode(map: &WindowMap) -> Result<(WindowKind, String, &'static [&'static str]), Problem> {
    let durations = [
        ("exact", &map.exact),
        ("range", &map.range),
        ("sawtooth", &map.sawtooth),
        ("tumbling", &map.tumbling),
        ("hopping", &map.hopping),
        ("session", &map.session),
    ];
    let mut modes: Vec<(&str, &str)> = durations
        .into_iter()
        .filter_map(|(mode, text)| Some((mode, text.as_deref()?)))
        .collect();
    modes.extend(map.rows.map(|_| ("rows", "")));
    modes.extend((map.lifetime == Some(true)).then_some(("lifetime", "")));
    let [(mode, text)] = modes.as_slice() else {
        let named: Vec<&str> = modes.iter().map(|(mode, _)| *mode).collect();
        return Err(Problem::user("invalid-window", "a window has exactly one mode")
            .detail(match named.is_empty() {
                true => "this one has none".to_owned(),
                false => format!("this one has {}", named.join(" and ")),
            })
            .hint("write `24h`, `lifetime`, or a map with one of exact, range, sawtooth, tumbling, hopping, session and rows"));
    };
    let named = |kind, takes: &'static [&'static str]| Ok((kind, format!("{mode}_{text}"), takes));
    match *mode {
        "exact" => named(
            WindowKind::Exact {
                width: width(text)?,
            },
            &[],
        ),
        "range" => named(
            WindowKind::Range {
                width: width(text)?,
            },
            &[],
        ),
        "sawtooth" => named(sawtooth(map, width(text)?)?, &["hop", "align"]),
        "tumbling" => named(tumbling(map, width(text)?)?, &["align", "partial"]),
        "hopping" => named(hopping(map, width(text)?)?, &["every", "align", "partial"]),
        "session" => named(WindowKind::Session { gap: width(text)? }, &[]),
        "rows" => {
            let rows = count("rows", map.rows.unwrap_or(0), LIST_MAX)?;
            Ok((WindowKind::Rows { rows }, format!("rows_{rows}"), &[]))
        }
        _ => Ok((WindowKind::Lifetime, "lifetime".to_owned(), &[])),
    }
}

fn sawtooth(map: &WindowMap, width: Micros) -> Result<WindowKind, Problem> {
    let grid = match &map.hop {
        Some(hop) => grid(map, "hop", hop, width)?,
        None => {
            let every = match width {
                w if w >= 12 * DAY => DAY,
                w if w >= 12 * HOUR => HOUR,
                _ => 5 * MINUTE,
            };
            grid_of(map, "hop", every, width)?
        }
    };
    Ok(WindowKind::Sawtooth { width, grid })
}

fn tumbling(map: &WindowMap, width: Micros) -> Result<WindowKind, Problem> {
    Ok(WindowKind::Hopping {
        width,
        grid: grid_of(map, "tumbling", width, width)?,
        partial: map.partial.unwrap_or(false),
    })
}

fn hopping(map: &WindowMap, width: Micros) -> Result<WindowKind, Problem> {
    let every = map.every.as_ref().ok_or_else(|| {
        Problem::user("invalid-window", "a hopping window needs `every`").hint(
            "write how often one begins, as in `{hopping: 1h, every: 5m}`; one that begins where the last ends is `tumbling`",
        )
    })?;
    Ok(WindowKind::Hopping {
        width,
        grid: grid(map, "every", every, width)?,
        partial: map.partial.unwrap_or(false),
    })
}

fn grid(map: &WindowMap, key: &str, every: &str, width: Micros) -> Result<Grid, Problem> {
    let every = duration(every)?;
    if every < WIDTH_MIN {
        return Err(
            Problem::user("invalid-window", format!("`{key}` is too short"))
                .hint("make it at least 1ms"),
        );
    }
    grid_of(map, key, every, width)
}

/// The grid of starts that a window is laid on; no window is narrower than its grid.
fn grid_of(map: &WindowMap, key: &str, every: Micros, width: Micros) -> Result<Grid, Problem> {
    if every > width {
        return Err(Problem::user(
            "invalid-window",
            format!("`{key}` is longer than the window is wide"),
        )
        .detail(format!("{} and {}", Duration(every), Duration(width)))
        .hint(format!("give it a `{key}` of at most its width")));
    }
    let align = map.align.as_deref().map(duration).transpose()?.unwrap_or(0);
    if align >= every {
        return Err(
            Problem::user("invalid-window", "`align` passes a whole step of the grid")
                .detail(format!("windows begin every {}", Duration(every)))
                .hint("make it shorter than that: it moves where they begin"),
        );
    }
    Ok(Grid { every, align })
}

/// A number between 1 and `max`.
pub fn count(what: &str, n: usize, max: usize) -> Result<usize, Problem> {
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

#[cfg(test)]
mod tests;
