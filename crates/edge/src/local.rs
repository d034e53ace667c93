//! Facts that happen here: checked by their contract, kept in the journal, and seen by every later read.

use std::sync::{Arc, MutexGuard, PoisonError};

use headwater_facts::{AppendRequest, Appended, Change, take_facts};
use headwater_schema::contract::suggest;
use headwater_schema::decode::{BodyFormat, DecodeLimits, Decoded, decode};
use headwater_schema::time::format_timestamp;
use headwater_schema::{Contract, FactBatch, Micros, Problem};

use crate::Edge;
use crate::journal::{Entry, Journal};
use crate::limits::{BODY_BYTES_MAX, LOCAL_FACTS_MAX};

/// What was told here.
#[derive(Default)]
pub(crate) struct Local {
    pub facts: usize,
    journal: Option<Journal>,
}

/// What became of facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub accepted: usize,
    /// Facts that the bundle or an earlier call had already.
    pub duplicates: usize,
    pub rejected: Vec<RejectedRow>,
}

/// A row that wasn't taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Its place among the rows that were given.
    pub row: usize,
    pub field: Option<String>,
    pub reason: String,
}

/// What became of a retraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retracted {
    pub retracted: usize,
    /// Ids that no live fact has here.
    pub unknown: Vec<String>,
}

impl Edge {
    /// Takes facts of a contract, a JSON array of objects. With `revise` one whose id is known replaces that fact. Rows
    /// that break the contract are told; the others count.
    pub fn add_facts(&self, contract: &str, rows: &[u8], revise: bool) -> Result<Added, Problem> {
        let contract = self.contract(contract)?.clone();
        if revise && contract.fact_id.is_empty() {
            return Err(Problem::user(
                "no-fact-id",
                format!("facts of `{}` have no id to revise them by", contract.name),
            )
            .hint("retract, by its sequence, what is wrong, and add what is right"));
        }
        let limits = DecodeLimits {
            body_bytes_max: BODY_BYTES_MAX,
            ..DecodeLimits::default()
        };
        let decoded = decode(&contract, BodyFormat::Json, rows, &limits)?;
        let mut local = self.locked();
        let (batch, numbers, mut rejected) = self.within_reach(&contract, decoded, revise)?;
        if local.facts + batch.len() > LOCAL_FACTS_MAX {
            return Err(Problem::user("limit", "too many facts were told here")
                .detail(format!("at most {LOCAL_FACTS_MAX}"))
                .hint("send them to the server, and go on with a newer bundle"));
        }
        let appended = match batch.is_empty() {
            true => Appended::default(),
            false => {
                let entry = match revise {
                    true => Entry::Revise(batch),
                    false => Entry::Append(batch),
                };
                self.take(&mut local, &contract, entry)?
            }
        };
        let id_field = contract.fact_id.first();
        let id_field = id_field.map(|i| contract.fields[*i].name.to_string());
        rejected.extend(appended.conflicts.iter().map(|row| {
            RejectedRow {
                row: numbers[*row],
                field: id_field.clone(),
                reason:
                    "a fact with this id and another payload is known: to replace it, say to revise"
                        .into(),
            }
        }));
        rejected.sort_by_key(|r| r.row);
        Ok(Added {
            accepted: appended.batch.as_ref().map_or(0, |b| b.batch.len()),
            duplicates: appended.duplicates.len(),
            rejected,
        })
    }

    /// Takes back the newest live fact with each id.
    pub fn retract(&self, contract: &str, fact_ids: Vec<String>) -> Result<Retracted, Problem> {
        let contract = self.contract(contract)?.clone();
        let mut local = self.locked();
        for id in &fact_ids {
            if let Some(reason) = self.settled(&contract, id) {
                return Err(
                    Problem::user("past-bundle", "a fact can't be taken back here")
                        .field("fact_ids")
                        .detail(format!("`{id}`: {reason}"))
                        .hint("take it back on the server, and make the bundle again"),
                );
            }
        }
        let ids = fact_ids.clone();
        let entry = Entry::Retract(contract.name.to_string(), ids);
        let appended = self.take(&mut local, &contract, entry)?;
        let unknown = appended
            .unknown
            .iter()
            .map(|place| fact_ids[*place].clone());
        let unknown: Vec<String> = unknown.collect();
        Ok(Retracted {
            retracted: fact_ids.len() - unknown.len(),
            unknown,
        })
    }

    fn locked(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A contract that features here are made of.
    fn contract(&self, name: &str) -> Result<&Arc<Contract>, Problem> {
        let used = || {
            let sources = self.catalog.views().flat_map(|view| &view.sources);
            sources.map(|source| source.contract.as_ref())
        };
        let found = self.catalog.contract(name);
        found.filter(|_| used().any(|c| c == name)).ok_or_else(|| {
            let title = format!("no feature here is made of a contract `{name}`");
            Problem::user("unknown-contract", title).hint(suggest(name, used()))
        })
    }

    /// The facts that can be told apart from those that the bundle left out, with their places among the rows; and why
    /// others can't be taken.
    fn within_reach(
        &self,
        contract: &Contract,
        decoded: Decoded,
        revise: bool,
    ) -> Result<(FactBatch, Vec<usize>, Vec<RejectedRow>), Problem> {
        let Decoded {
            batch,
            row_numbers,
            rejected,
            ..
        } = decoded;
        let mut told: Vec<RejectedRow> = rejected
            .into_iter()
            .map(|r| RejectedRow {
                row: r.row,
                field: r.field,
                reason: r.reason,
            })
            .collect();
        let Some(missing_to) = self.head.missing_to.get(contract.name.as_ref()) else {
            return Ok((batch, row_numbers, told));
        };
        let mut kept: Vec<u32> = Vec::new();
        for (row, number) in row_numbers.iter().enumerate() {
            let id = batch.fact_ids.as_ref().map(|ids| ids.value(row));
            let reason = match (batch.event_times[row] <= *missing_to, id) {
                (true, _) => Some(format!(
                    "it happened by {}, up to when the bundle doesn't tell known facts from new ones: send it to the server",
                    format_timestamp(*missing_to)
                )),
                (false, Some(id)) if revise && self.log.live(&contract.name, id).is_none() => {
                    Some("the bundle knows no fact with this id, and left some out: revise it on the server".into())
                }
                (false, Some(id)) if revise => self.settled(contract, id),
                _ => None,
            };
            match reason {
                None => kept.push(row as u32),
                Some(reason) => told.push(RejectedRow {
                    row: *number,
                    field: Some(contract.fields[contract.event_time].name.to_string()),
                    reason,
                }),
            }
        }
        let numbers = kept.iter().map(|row| row_numbers[*row as usize]).collect();
        Ok((take_facts(&batch, &kept)?, numbers, told))
    }

    /// Why a known fact can't be corrected here, where it can't.
    fn settled(&self, contract: &Contract, id: &str) -> Option<String> {
        let name = contract.name.as_ref();
        self.head.missing_to.get(name)?;
        let known = self.log.live(name, id)?;
        let folded_to = self.head.folded_to.get(name)?;
        (known.event_time <= *folded_to).then(|| {
            format!(
                "the fact that is known happened by {}, up to when the bundle holds facts only all together",
                format_timestamp(*folded_to)
            )
        })
    }

    /// Writes down what is told, and lets it count.
    fn take(
        &self,
        local: &mut Local,
        contract: &Contract,
        entry: Entry,
    ) -> Result<Appended, Problem> {
        let at = self.env.clock.now();
        if let Some(journal) = &mut local.journal
            && !self.is_known(contract, &entry)
        {
            journal.append(at, &entry)?;
        }
        self.count(local, contract, entry, at)
    }

    /// Whether it can't change anything: facts whose ids are remembered for ever, and known.
    fn is_known(&self, contract: &Contract, entry: &Entry) -> bool {
        let Entry::Append(FactBatch {
            fact_ids: Some(ids),
            ..
        }) = entry
        else {
            return false;
        };
        let known = |id: &str| self.log.live(&contract.name, id).is_some();
        contract.dedup_window.is_none() && ids.iter().flatten().all(known)
    }

    fn count(
        &self,
        local: &mut Local,
        contract: &Contract,
        entry: Entry,
        at: Micros,
    ) -> Result<Appended, Problem> {
        let request = AppendRequest {
            dedup_window: contract.dedup_window.map(|d| d.0),
            ..AppendRequest::new(entry.into_change())
        };
        let appended = self.log.append_at(&request, at)?;
        if let Some(batch) = &appended.batch {
            self.processor.apply(batch)?;
            local.facts += batch.batch.len();
        }
        Ok(appended)
    }

    /// Tells again what a journal holds.
    pub(crate) fn replay(&self, entries: Vec<(Micros, Entry)>) -> Result<(), Problem> {
        let mut local = self.locked();
        for (at, entry) in entries {
            let contract = self.contract(entry.contract())?.clone();
            self.count(&mut local, &contract, entry, at)?;
        }
        Ok(())
    }

    pub(crate) fn keep_journal(&self, journal: Journal) {
        self.locked().journal = Some(journal);
    }
}

impl Entry {
    fn contract(&self) -> &str {
        match self {
            Self::Append(batch) | Self::Revise(batch) => &batch.contract,
            Self::Retract(contract, _) => contract,
        }
    }

    fn into_change(self) -> Change {
        match self {
            Self::Append(batch) => Change::Append(batch),
            Self::Revise(batch) => Change::Revise(batch),
            Self::Retract(contract, fact_ids) => Change::Retract {
                contract: contract.into(),
                fact_ids,
            },
        }
    }
}
