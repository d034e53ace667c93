//! Event time, sequences, and the total order of facts that every mode agrees on.

/// Signed microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// A fact's place in the log. The first fact is 1; 0 stands before all of them.
pub type Sequence = u64;

/// A place in the total order `(event_time, sequence)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub event_time: Micros,
    pub sequence: Sequence,
}

impl Position {
    pub const MIN: Self = Self::new(Micros::MIN, 0);
    pub const MAX: Self = Self::new(Micros::MAX, Sequence::MAX);

    pub const fn new(event_time: Micros, sequence: Sequence) -> Self {
        Self {
            event_time,
            sequence,
        }
    }

    /// The place before every fact at `event_time`.
    pub const fn before(event_time: Micros) -> Self {
        Self::new(event_time, 0)
    }

    /// The place after every fact at `event_time`.
    pub const fn after(event_time: Micros) -> Self {
        Self::new(event_time, Sequence::MAX)
    }
}

/// What a read sees: facts before `until` in the total order that were known by `known_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The event time that windows are counted back from.
    pub as_of: Micros,
    /// The first place of the total order that is hidden.
    pub until: Position,
    /// The last sequence that had been appended; [`Sequence::MAX`] sees all.
    pub known_at: Sequence,
}

impl Cursor {
    /// Sees facts at `as_of` itself.
    pub const fn inclusive(as_of: Micros) -> Self {
        Self {
            as_of,
            until: Position::after(as_of),
            known_at: Sequence::MAX,
        }
    }

    /// Hides facts at `as_of` itself; windows still count back from it.
    pub const fn exclusive(as_of: Micros) -> Self {
        Self {
            as_of,
            until: Position::before(as_of),
            known_at: Sequence::MAX,
        }
    }

    /// Sees what stands strictly before one fact in the total order.
    pub const fn before_fact(position: Position) -> Self {
        Self {
            as_of: position.event_time,
            until: position,
            known_at: Sequence::MAX,
        }
    }

    /// The same cursor, as of what had been appended by `sequence`.
    pub const fn known_at(self, sequence: Sequence) -> Self {
        Self {
            known_at: sequence,
            ..self
        }
    }

    /// The same cursor moved back by `offset` microseconds.
    pub const fn moved_back(self, offset: Micros) -> Self {
        Self {
            as_of: self.as_of.saturating_sub(offset),
            until: Position::new(
                self.until.event_time.saturating_sub(offset),
                self.until.sequence,
            ),
            known_at: self.known_at,
        }
    }
}
