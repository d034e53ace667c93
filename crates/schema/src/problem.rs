//! What went wrong, for the person who has to mend it: what, where, who is to blame, whether
//! trying again helps, and how to mend it.

use std::fmt;

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller: a bad definition, request or row.
    User,
    /// Something this process depends on: a disk, a network, another process.
    External,
    /// Headwater itself: a bug.
    Internal,
}

/// A place in a file that a person can open. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    pub file: String,
    pub line: usize,
    pub column: usize,
}

/// The one error type that crosses crate borders.
///
/// `code` is stable and in kebab-case (`unknown-contract`); programs match on it. `title` is a
/// sentence without a full stop, `detail` says what was seen, `hint` says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: &'static str,
    pub blame: Blame,
    /// Whether the same call may succeed later, unchanged.
    pub retry: bool,
    pub title: String,
    pub detail: String,
    pub hint: String,
    /// The field, column or definition that is wrong, as a path (`spec.features[2].of`).
    pub field: Option<String>,
    pub location: Option<Location>,
}

impl Problem {
    pub fn user(code: &'static str, title: impl Into<String>) -> Self {
        Self::new(code, Blame::User, title)
    }

    pub fn external(code: &'static str, title: impl Into<String>) -> Self {
        Self::new(code, Blame::External, title)
    }

    pub fn internal(code: &'static str, title: impl Into<String>) -> Self {
        Self::new(code, Blame::Internal, title)
    }

    fn new(code: &'static str, blame: Blame, title: impl Into<String>) -> Self {
        Self {
            code,
            blame,
            retry: false,
            title: title.into(),
            detail: String::new(),
            hint: String::new(),
            field: None,
            location: None,
        }
    }

    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = detail.to_string();
        self
    }

    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = hint.to_string();
        self
    }

    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// Says that the same call may succeed later.
    pub fn retryable(mut self) -> Self {
        self.retry = true;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.location {
            write!(f, "{}:{}:{}: ", at.file, at.line, at.column)?;
        }
        f.write_str(&self.title)?;
        if let Some(field) = &self.field {
            write!(f, " (`{field}`)")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
