//! Windows as they are written, read into what `aggregate` runs.

use headwater_aggregate::{Window, WindowKind};
use headwater_schema::time::Duration;
use headwater_schema::{Micros, Problem};

use crate::catalog::not_available;
use crate::definition::{WindowMap, WindowSpec};

/// A width below a millisecond is refused.
const WIDTH_MIN: Micros = 1000;
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
