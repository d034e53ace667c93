//! Which facts a feature counts at a cursor, as a range of the total order.

use headwater_schema::{Cursor, Micros, Position};

/// How a window chooses its facts. Widths are microseconds and at least a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// `t − width < event_time ≤ t`.
    Exact { width: Micros },
    /// `t − width ≤ event_time ≤ t`.
    Range { width: Micros },
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
    /// Only the newest of them count, this many.
    pub newest: Option<usize>,
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
        let (from, rows) = match self.kind {
            WindowKind::Exact { width } => {
                let start = cursor.as_of.saturating_sub(width).saturating_add(1);
                (Position::before(start), None)
            }
            WindowKind::Range { width } => {
                (Position::before(cursor.as_of.saturating_sub(width)), None)
            }
            WindowKind::Rows { rows } => (Position::MIN, Some(rows)),
            WindowKind::Lifetime => (Position::MIN, None),
        };
        let newest = match (rows, self.limit) {
            (Some(rows), Some(limit)) => Some(rows.min(limit)),
            (rows, limit) => rows.or(limit),
        };
        WindowRange {
            from,
            until: cursor.until,
            newest,
        }
    }

    /// The time that the window spans, where that is the same at every cursor.
    pub fn width(&self) -> Option<Micros> {
        match self.kind {
            WindowKind::Exact { width } | WindowKind::Range { width } => Some(width),
            WindowKind::Rows { .. } | WindowKind::Lifetime => None,
        }
    }

    /// How far back from the cursor the window reaches, or none where it has no end.
    pub fn reach(&self) -> Option<Micros> {
        match self.kind {
            WindowKind::Exact { width } | WindowKind::Range { width } => {
                Some(width.saturating_add(self.offset))
            }
            WindowKind::Rows { .. } | WindowKind::Lifetime => None,
        }
    }
}
