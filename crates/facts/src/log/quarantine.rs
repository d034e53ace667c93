//! The quarantine within the log: rejected rows, numbered by contract, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use headwater_schema::{Micros, Problem};

use super::LogReader;
use crate::frame::Frame;
use crate::segment::Segment;
use crate::{Fault, QuarantineQuery, QuarantinedRow};

/// A walk from the newest rejected row to the oldest.
struct Walk<'a> {
    query: &'a QuarantineQuery,
    wanted: BTreeSet<u64>,
    /// The newest fault of each row, and when it became a fact.
    verdicts: BTreeMap<u64, (Option<Fault>, Option<Micros>)>,
    /// The number of the next row that the walk meets.
    next: u64,
    found: Vec<QuarantinedRow>,
}

impl LogReader {
    /// The rows of a contract that have become facts.
    pub fn resolved(&self, contract: &str) -> BTreeSet<u64> {
        let segments = self.segments();
        let sets = segments.iter().filter_map(|s| s.resolved.get(contract));
        sets.flatten().copied().collect()
    }

    /// How many rows of a contract were ever rejected.
    pub fn rejected(&self, contract: &str) -> u64 {
        let segments = self.segments();
        segments
            .iter()
            .filter_map(|s| s.rejected.get(contract))
            .sum()
    }

    /// Rejected rows of a contract, newest first.
    pub fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        let total = self.rejected(&query.contract);
        let resolved = match query.resolved {
            true => BTreeSet::new(),
            false => self.resolved(&query.contract),
        };
        let open = |id: &u64| (1..=total).contains(id) && !resolved.contains(id);
        let wanted: BTreeSet<u64> = match &query.ids {
            Some(ids) => ids
                .iter()
                .rev()
                .copied()
                .filter(open)
                .take(query.limit)
                .collect(),
            None => (1..=total).rev().filter(open).take(query.limit).collect(),
        };
        let mut walk = Walk {
            query,
            wanted,
            verdicts: BTreeMap::new(),
            next: total,
            found: Vec::new(),
        };
        for segment in self.segments().iter().rev() {
            if walk.found.len() == walk.wanted.len() {
                break;
            }
            if walk.passes(segment) {
                continue;
            }
            let segment = self.opened(segment)?;
            for span in (0..segment.spans.len()).rev() {
                if segment.spans[span].quarantine {
                    let frames = self.frames(&segment, span)?;
                    frames.iter().rev().for_each(|frame| walk.meet(frame));
                }
            }
        }
        Ok(walk.found)
    }
}

impl Walk<'_> {
    /// Whether a segment has nothing to say of the wanted rows; then its rows are counted only.
    fn passes(&mut self, segment: &Segment) -> bool {
        let contract = self.query.contract.as_ref();
        let rows = segment.rejected.get(contract).copied().unwrap_or(0);
        let oldest = self.next.saturating_sub(rows) + 1;
        let mut wanted = self.wanted.range(oldest..);
        let nothing = !segment.verdicts && wanted.next().is_none_or(|id| *id > self.next);
        if nothing {
            self.next = self.next.saturating_sub(rows);
        }
        nothing
    }

    fn meet(&mut self, frame: &Frame) {
        let contract = self.query.contract.as_ref();
        if let Some(batch) = frame.batch().filter(|b| *b.batch.contract == *contract) {
            for verdict in frame.verdicts() {
                let (newest, resolved) = self.verdicts.entry(verdict.row).or_default();
                match &verdict.fault {
                    Some(fault) => {
                        newest.get_or_insert_with(|| fault.clone());
                    }
                    None => *resolved = Some(batch.ingest_time),
                }
            }
        }
        let Frame::Quarantine(rows) = frame else {
            return;
        };
        for row in rows.iter().rev().filter(|r| r.contract == contract) {
            let id = self.next;
            self.next = self.next.saturating_sub(1);
            if !self.wanted.contains(&id) {
                continue;
            }
            let mut row = QuarantinedRow { id, ..row.clone() };
            let (fault, resolved) = self.verdicts.remove(&id).unwrap_or_default();
            row.resolved = resolved;
            row.fault = fault.unwrap_or(row.fault);
            self.found.push(row);
        }
    }
}
