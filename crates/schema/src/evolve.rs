//! How contracts change: what a change means for facts, senders and readers, which version it asks
//! for, and how facts of older versions are read under the present one.
//!
//! A change is compatible (a new minor version) if every fact that was accepted still is, and reads
//! as the same value. Everything else needs a new major version; what no fact can notice, a patch.
//! Facts are never rewritten: [`project`] reads the columns of any older version as the present
//! contract's.

mod compare;
mod project;

use crate::{Contract, Problem};

pub use compare::compare;
pub use project::{project, read_as};

/// The part of a version that a change asks to be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bump {
    None,
    Patch,
    Minor,
    Major,
}

impl Bump {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        }
    }
}

/// One difference between two versions of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The field as a path, or empty for the contract as a whole.
    pub field: String,
    /// What changed, as a sentence.
    pub what: String,
    pub compatible: bool,
    pub bump: Bump,
    /// Why it asks for that version.
    pub why: String,
}

/// The version that all of these changes together ask for.
pub fn required_bump(changes: &[Change]) -> Bump {
    changes
        .iter()
        .map(|change| change.bump)
        .max()
        .unwrap_or(Bump::None)
}

/// The least version that may follow `old` with such changes. Below 1.0.0 every part counts one
/// lower, as semantic versioning has it: a breaking change raises the minor.
pub fn next_version(old: &semver::Version, bump: Bump) -> semver::Version {
    let (major, minor, patch) = (old.major, old.minor, old.patch);
    match (bump, major) {
        (Bump::None, _) => old.clone(),
        (Bump::Major, 1..) => semver::Version::new(major + 1, 0, 0),
        (Bump::Major, 0) => semver::Version::new(0, minor + 1, 0),
        (Bump::Minor, 1..) => semver::Version::new(major, minor + 1, 0),
        (Bump::Minor, 0) | (Bump::Patch, _) => semver::Version::new(major, minor, patch + 1),
    }
}

/// The changes from `old` to `new`, or a problem where the version was not raised enough for them.
pub fn check_version(old: &Contract, new: &Contract) -> Result<Vec<Change>, Problem> {
    let changes = compare(old, new);
    let least = next_version(&old.version, required_bump(&changes));
    if new.version >= least {
        return Ok(changes);
    }
    let problem = |title: String| {
        Problem::user("version-too-low", title)
            .field("version")
            .hint(format!("Write `version: {least}` or higher"))
    };
    if new.version < old.version {
        return Err(problem(format!(
            "The version of contract `{}` goes back from {} to {}",
            new.name, old.version, new.version
        )));
    }
    let bump = required_bump(&changes);
    let reasons = changes.iter().filter(|change| change.bump == bump);
    let reasons: Vec<String> = reasons.map(|c| format!("{} {}", c.what, c.why)).collect();
    Err(problem(format!(
        "Contract `{}` changed and needs a new {} version",
        new.name,
        bump.as_str()
    ))
    .detail(reasons.join(" ")))
}

#[cfg(test)]
mod tests;
