//! Which facts a feature counts at a cursor, as a range of the total order.

use headwater_schema::{Cursor, Micros, Position};

/// Where the windows of a mode start: at `align + n × every`, for every whole n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    pub every: Micros,
    /// At least zero and less than `every`.
    pub align: Micros,
}

impl Grid {
    pub const fn new(every: Micros) -> Self {
        Self { every, align: 0 }
    }

    /// The last start at or before `t`.
    fn floor(&self, t: Micros) -> Micros {
        let (every, align) = (i128::from(self.every.max(1)), i128::from(self.align));
        let steps = (i128::from(t) - align).div_euclid(every);
        let start = (steps * every + align).max(i128::from(Micros::MIN));
        Micros::try_from(start).unwrap_or(Micros::MAX)
    }
}

/// How a window chooses its facts. Widths are microseconds and at least a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// `t − width < event_time ≤ t`.
    Exact { width: Micros },
    /// `t − width ≤ event_time ≤ t`.
    Range { width: Micros },
    /// `floor(t − width) ≤ event_time < t`, whatever the read says of facts at `t` itself.
    Sawtooth { width: Micros, grid: Grid },
    /// The newest window of the grid that is complete at `t`: `start + width ≤ t`. With `partial` the
    /// newest that `t` lies in, so far. A tumbling window's grid is as wide as the window.
    Hopping {
        width: Micros,
        grid: Grid,
        partial: bool,
    },
    /// The newest facts with no more than `gap` between one and the next.
    Session { gap: Micros },
    /// The newest `rows` facts of the total order.
    Rows { rows: usize },
    /// Every fact.
    Lifetime,
}

/// A window: its kind, how far its cursor is moved back, and how many of its newest facts it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    pub kind: WindowKind,
    pub offset: Micros,
    pub limit: Option<usize>,
}

/// The part of the total order that a window covers at a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRange {
    /// The first place that counts.
    pub from: Position,
    /// The first place after it that doesn't.
    pub until: Position,
    /// Only the newest run of them counts, whose facts have no greater gaps than this.
    pub session: Option<Micros>,
    /// Only the newest of them count, this many.
    pub newest: Option<usize>,
    /// A bool input that says which facts sessions and the newest are picked from; none: all.
    pub among: Option<usize>,
}

impl WindowRange {
    /// Every fact between two places.
    pub const fn between(from: Position, until: Position) -> Self {
        Self {
            from,
            until,
            session: None,
            newest: None,
            among: None,
        }
    }
}

impl Window {
    pub const fn new(kind: WindowKind) -> Self {
        Self {
            kind,
            offset: 0,
            limit: None,
        }
    }

    /// The facts that count at `cursor`.
    pub fn range(&self, cursor: &Cursor) -> WindowRange {
        let cursor = cursor.moved_back(self.offset);
        let t = cursor.as_of;
        let mut range = WindowRange::between(Position::MIN, cursor.until);
        let mut bounds = |start: Micros, end: Micros| {
            range.from = Position::before(start);
            range.until = range.until.min(Position::before(end));
        };
        match self.kind {
            WindowKind::Exact { width } => {
                range.from = Position::before(t.saturating_sub(width).saturating_add(1));
            }
            WindowKind::Range { width } => range.from = Position::before(t.saturating_sub(width)),
            WindowKind::Sawtooth { width, grid } => bounds(grid.floor(t.saturating_sub(width)), t),
            WindowKind::Hopping {
                width,
                grid,
                partial,
            } => {
                let start = grid.floor(if partial { t } else { t.saturating_sub(width) });
                bounds(start, start.saturating_add(width));
            }
            WindowKind::Session { gap } => range.session = Some(gap),
            WindowKind::Rows { rows } => range.newest = Some(rows),
            WindowKind::Lifetime => {}
        }
        range.newest = match (range.newest, self.limit) {
            (Some(rows), Some(limit)) => Some(rows.min(limit)),
            (rows, limit) => rows.or(limit),
        };
        range
    }

    /// Whether the window picks among facts by what else there is: by their number or their gaps.
    pub fn picks(&self) -> bool {
        self.limit.is_some()
            || matches!(
                self.kind,
                WindowKind::Rows { .. } | WindowKind::Session { .. }
            )
    }

    /// How wide the window is, or none where facts say that and not time.
    pub fn width(&self) -> Option<Micros> {
        match self.kind {
            WindowKind::Exact { width }
            | WindowKind::Range { width }
            | WindowKind::Sawtooth { width, .. }
            | WindowKind::Hopping { width, .. } => Some(width),
            WindowKind::Session { .. } | WindowKind::Rows { .. } | WindowKind::Lifetime => None,
        }
    }

    /// How far back from the cursor the window reaches, or none where it has no end.
    pub fn reach(&self) -> Option<Micros> {
        let reach = match self.kind {
            WindowKind::Exact { width } | WindowKind::Range { width } => width,
            WindowKind::Sawtooth { width, grid } => width.saturating_add(grid.every),
            WindowKind::Hopping {
                grid,
                partial: true,
                ..
            } => grid.every,
            WindowKind::Hopping { width, grid, .. } => width.saturating_add(grid.every),
            WindowKind::Session { .. } | WindowKind::Rows { .. } | WindowKind::Lifetime => {
                return None;
            }
        };
        Some(reach.saturating_add(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Micros = 86_400_000_000;

    fn bounds(kind: WindowKind, cursor: Cursor) -> (Position, Position) {
        let range = Window::new(kind).range(&cursor);
        (range.from, range.until)
    }

    #[test]
    fn grids_stand_on_the_epoch_or_where_they_are_aligned_before_it_too() {
        // 1970-01-01 was a Thursday; four days later a week begins on a Monday.
        let mondays = Grid {
            every: 7 * DAY,
            align: 4 * DAY,
        };
        let at = |day: i64| {
            let week = WindowKind::Hopping {
                width: 7 * DAY,
                grid: mondays,
                partial: true,
            };
            let (from, until) = bounds(week, Cursor::exclusive(day * DAY + 1));
            (from.event_time / DAY, until)
        };
        let hidden = |day: i64| Position::before(day * DAY + 1);
        assert_eq!(at(4), (4, hidden(4)));
        assert_eq!(at(3), (-3, hidden(3)));
        assert_eq!(at(-3), (-3, hidden(-3)));
        assert_eq!(at(-4), (-10, hidden(-4)));
    }

    #[test]
    fn a_complete_window_ends_at_or_before_the_cursor_and_a_sawtooth_hides_the_cursor() {
        let grid = Grid::new(10);
        let hopping = WindowKind::Hopping {
            width: 25,
            grid,
            partial: false,
        };
        let span = |from, until| (Position::before(from), Position::before(until));
        assert_eq!(bounds(hopping, Cursor::inclusive(35)), span(10, 35));
        assert_eq!(bounds(hopping, Cursor::inclusive(34)), span(0, 25));
        assert_eq!(bounds(hopping, Cursor::inclusive(-1)), span(-30, -5));
        let sawtooth = WindowKind::Sawtooth { width: 25, grid };
        for cursor in [
            Cursor::inclusive(34),
            Cursor::exclusive(34),
            Cursor::before_fact(Position::new(34, 7)),
        ] {
            assert_eq!(bounds(sawtooth, cursor), span(0, 34));
        }
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        for t in [Micros::MIN, Micros::MAX] {
            let (width, grid) = (
                Micros::MAX,
                Grid {
                    every: Micros::MAX,
                    align: 7,
                },
            );
            for kind in [
                WindowKind::Exact { width },
                WindowKind::Sawtooth { width, grid },
                WindowKind::Hopping {
                    width,
                    grid,
                    partial: false,
                },
            ] {
                let (from, until) = bounds(kind, Cursor::inclusive(t));
                assert!(from.event_time.saturating_sub(1) <= until.event_time);
            }
        }
    }
}
