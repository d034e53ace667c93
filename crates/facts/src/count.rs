//! How many facts a log holds, found without opening it: another process may be writing to it.

use std::collections::BTreeMap;
use std::path::Path;

use headwater_env::Env;
use headwater_schema::{Problem, Sequence};

use crate::archive::archived_segments;
use crate::log::{first_named, segment_paths};
use crate::segment::{Opened, Segment};

/// Facts by contract of the log in `folder`, as far as they are written; nothing is changed.
pub fn count_facts(env: &Env, folder: &Path) -> Result<BTreeMap<String, u64>, Problem> {
    let log = folder.join("log");
    let mut counts = BTreeMap::new();
    if !env.files.exists(&log) {
        return Ok(counts);
    }
    let paths = segment_paths(env, &log)?;
    let first = first_named(env, &log)?.unwrap_or(Sequence::MAX);
    for segment in archived_segments(env, folder, first)? {
        add(&mut counts, segment);
    }
    for (index, path) in paths.iter().enumerate() {
        let last = index + 1 == paths.len();
        let segment = match Segment::open(env, path, last, false)? {
            Opened::Whole(segment) | Opened::Torn { segment, .. } => segment,
            Opened::Empty => continue,
        };
        add(&mut counts, segment);
    }
    Ok(counts)
}

fn add(counts: &mut BTreeMap<String, u64>, segment: Segment) {
    for (contract, summary) in segment.contracts {
        *counts.entry(contract).or_default() += summary.facts;
    }
}
