//! Rows that broke their contract: listed, tried again as they came, or mended.

use std::collections::{BTreeMap, BTreeSet};

use headwater_api::backend::{MendReply, Mending, QuarantineRow, StillRejected};
use headwater_facts::{
    AppendRequest, Change, FactLog, Fault, Mends, QuarantineQuery, QuarantinedRow,
};
use headwater_schema::decode::{BodyFormat, DecodeLimits, Decoded, decode};
use headwater_schema::{Contract, Problem};

use crate::Engine;
use crate::engine::id_field;

/// Rows that are tried together.
const MENDED_TOGETHER: u64 = 4096;
/// Rows of which a reply tells why they still wait.
const TOLD_MAX: usize = 1000;

/// Rows with the same numbers, tried again.
struct Tried {
    /// The rows that keep the contract, and what they are numbered in quarantine.
    facts: Decoded,
    rows: Vec<u64>,
    again: Vec<(u64, Fault)>,
}

impl Engine {
    /// Rows of a contract that were rejected, newest first; with those that are facts by now where
    /// `resolved` says so.
    pub fn quarantine(
        &self,
        contract: &str,
        resolved: bool,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, Problem> {
        let contract = self.contract(contract)?;
        let query = QuarantineQuery {
            resolved,
            ..QuarantineQuery::waiting(contract.name.clone(), limit)
        };
        let row = |row: QuarantinedRow| QuarantineRow {
            id: row.id,
            ingest_time: row.ingest_time,
            row: row.row,
            field: row.fault.field,
            rule: row.fault.rule,
            reason: row.fault.reason,
            raw: row.raw,
            resolved: row.resolved,
        };
        let rows = self.facts.quarantined(&query)?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Tries rows of the quarantine again, oldest first: those that keep the contract become facts,
    /// the others stay, with the new reason where they were tried as they came.
    pub fn mend(
        &self,
        contract: &str,
        mending: Mending,
        revise: bool,
    ) -> Result<MendReply, Problem> {
        let contract = self.contract(contract)?;
        if revise && contract.fact_id.is_empty() {
            return Err(no_fact_id(&contract));
        }
        let mut reply = MendReply {
            sequence: self.processor.applied(),
            ..MendReply::default()
        };
        match mending {
            Mending::All => {
                let query = QuarantineQuery::waiting(contract.name.clone(), 1);
                let newest = self.facts.quarantined(&query)?;
                let newest = newest.first().map_or(0, |row| row.id);
                for first in (1..=newest).step_by(MENDED_TOGETHER as usize) {
                    let last = newest.min(first + MENDED_TOGETHER - 1);
                    self.replay(&contract, (first..=last).collect(), revise, &mut reply)?;
                }
            }
            Mending::Rows(rows) => {
                let rows: Vec<u64> = BTreeSet::from_iter(rows).into_iter().collect();
                for rows in rows.chunks(MENDED_TOGETHER as usize) {
                    let rows: BTreeSet<u64> = rows.iter().copied().collect();
                    let found = self.replay(&contract, rows.clone(), revise, &mut reply)?;
                    let missing = rows.difference(&found);
                    missing.for_each(|row| reply.reject(*row, not_waiting()));
                }
            }
            Mending::Repaired(rows) => self.repair(&contract, rows, revise, &mut reply)?,
        }
        Ok(reply)
    }

    /// The rows that wait among those asked for, oldest first.
    fn waiting(
        &self,
        contract: &Contract,
        rows: BTreeSet<u64>,
    ) -> Result<Vec<QuarantinedRow>, Problem> {
        let mut rows = self.facts.quarantined(&QuarantineQuery {
            ids: Some(rows),
            ..QuarantineQuery::waiting(contract.name.clone(), usize::MAX)
        })?;
        rows.reverse();
        Ok(rows)
    }

    /// Tries rows as they came; which of them waited.
    fn replay(
        &self,
        contract: &Contract,
        rows: BTreeSet<u64>,
        revise: bool,
        reply: &mut MendReply,
    ) -> Result<BTreeSet<u64>, Problem> {
        let rows = self.waiting(contract, rows)?;
        let raw: Vec<(u64, String)> = rows.into_iter().map(|row| (row.id, row.raw)).collect();
        for tried in try_again(contract, &raw)? {
            self.append_mended(contract, tried, revise, reply)?;
        }
        Ok(raw.into_iter().map(|(row, _)| row).collect())
    }

    /// Takes mended rows; one that still breaks the contract leaves the row in quarantine as it was.
    fn repair(
        &self,
        contract: &Contract,
        rows: Vec<(u64, String)>,
        revise: bool,
        reply: &mut MendReply,
    ) -> Result<(), Problem> {
        let mut mended: BTreeMap<u64, String> = BTreeMap::new();
        for (row, text) in rows {
            if mended.insert(row, text).is_some() {
                return Err(
                    Problem::user("twice", "a row is mended twice in one request")
                        .field("id")
                        .detail(format!("the row {row}"))
                        .hint("send each row once"),
                );
            }
        }
        let waiting = self.waiting(contract, mended.keys().copied().collect())?;
        let waiting: BTreeSet<u64> = waiting.iter().map(|row| row.id).collect();
        let (mended, unknown): (Vec<_>, Vec<_>) = mended
            .into_iter()
            .partition(|(row, _)| waiting.contains(row));
        let unknown = unknown.into_iter();
        unknown.for_each(|(row, _)| reply.reject(row, not_waiting()));
        for mut tried in try_again(contract, &mended)? {
            let again = tried.again.drain(..);
            again.for_each(|(row, fault)| reply.reject(row, fault));
            self.append_mended(contract, tried, revise, reply)?;
        }
        Ok(())
    }

    fn append_mended(
        &self,
        contract: &Contract,
        tried: Tried,
        revise: bool,
        reply: &mut MendReply,
    ) -> Result<(), Problem> {
        let Tried { facts, rows, again } = tried;
        let appended = self.append(AppendRequest {
            dedup_window: contract.dedup_window.map(|d| d.0),
            mends: Mends {
                rows: rows.clone(),
                again: again.clone(),
            },
            ..AppendRequest::new(match revise {
                true => Change::Revise(facts.batch),
                false => Change::Append(facts.batch),
            })
        })?;
        reply.accepted += appended.batch.map_or(0, |batch| batch.batch.len());
        reply.duplicates += appended.duplicates.len();
        reply.sequence = appended.last_sequence;
        again
            .into_iter()
            .for_each(|(row, fault)| reply.reject(row, fault));
        for place in appended.conflicts {
            let field = id_field(contract);
            reply.reject(
                rows[place],
                Fault {
                    field,
                    ..Fault::conflict()
                },
            );
        }
        Ok(())
    }
}

trait Reject {
    fn reject(&mut self, row: u64, fault: Fault);
}

impl Reject for MendReply {
    fn reject(&mut self, row: u64, fault: Fault) {
        self.waiting += 1;
        if self.rejected.len() < TOLD_MAX {
            self.rejected.push(StillRejected {
                id: row,
                field: fault.field,
                reason: fault.reason,
            });
        }
    }
}

fn not_waiting() -> Fault {
    Fault {
        field: Some("id".into()),
        rule: "unknown".into(),
        reason: "no row with this id waits in quarantine".into(),
    }
}

/// Decodes rows of JSON under a contract: those of one line together, others each alone, since a row
/// that is no JSON may hold anything.
fn try_again(contract: &Contract, rows: &[(u64, String)]) -> Result<Vec<Tried>, Problem> {
    let line = |text: &str| !text.trim().is_empty() && !text.contains(['\n', '\r']);
    let (lines, others): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, text)| line(text));
    let mut tried = Vec::new();
    if !lines.is_empty() {
        let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
        let numbers: Vec<u64> = lines.iter().map(|(row, _)| *row).collect();
        let body = texts.join("\n");
        let limits = DecodeLimits::files();
        let decoded = decode(contract, BodyFormat::Ndjson, body.as_bytes(), &limits)?;
        tried.push(sorted(decoded, &numbers));
    }
    for (row, text) in others {
        let body = format!("[{text}]");
        let limits = DecodeLimits::files();
        let decoded = decode(contract, BodyFormat::Json, body.as_bytes(), &limits);
        let one = |decoded: &Decoded| decoded.row_numbers.len() + decoded.rejected.len() == 1;
        match decoded {
            Ok(decoded) if one(&decoded) => tried.push(sorted(decoded, &[*row])),
            _ => {
                let nothing = decode(contract, BodyFormat::Json, b"[]", &limits)?;
                let mut unread = sorted(nothing, &[]);
                unread.again.push((*row, no_json()));
                tried.push(unread);
            }
        }
    }
    Ok(tried)
}

fn no_json() -> Fault {
    Fault {
        field: None,
        rule: "syntax".into(),
        reason: "The row is no JSON object".into(),
    }
}

/// Tells rows that keep the contract from those that don't. `numbers` are those of all rows.
fn sorted(decoded: Decoded, numbers: &[u64]) -> Tried {
    let again = decoded.rejected.iter().map(|rejected| {
        let fault = Fault {
            field: rejected.field.clone(),
            rule: rejected.rule.clone(),
            reason: rejected.reason.clone(),
        };
        (numbers[rejected.row], fault)
    });
    Tried {
        rows: decoded
            .row_numbers
            .iter()
            .map(|row| numbers[*row])
            .collect(),
        again: again.collect(),
        facts: decoded,
    }
}

pub(crate) fn no_fact_id(contract: &Contract) -> Problem {
    Problem::user(
        "no-fact-id",
        format!("facts of `{}` have no id of their own", contract.name),
    )
    .field("revise")
    .detail("a revision replaces the fact that has the same id")
    .hint("name the column that identifies a fact as `headwater.factId` in the contract, or retract the fact by its sequence and send it anew")
}
