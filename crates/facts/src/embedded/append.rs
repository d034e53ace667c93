//! What a group of requests changes, worked out before anything is written: which facts are new,
//! which are known, and which earlier facts they replace or take back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use headwater_schema::{FactBatch, Micros, Problem, Sequence, SequencedBatch};

use super::EmbeddedFactLog;
use crate::found::{missing, removed_facts, take};
use crate::frame::{self, Correction, Frame, Verdict};
use crate::group::MARK_BYTES;
use crate::index::{IdChange, KnownId};
use crate::memory::nothing;
use crate::row_hash::{id_hash, payload_hashes};
use crate::{AppendRequest, Appended, Change, Fault, QuarantinedRow};

/// The requests of one durable write, taken one after another.
pub struct Group<'a> {
    log: &'a EmbeddedFactLog,
    now: Micros,
    next: Sequence,
    /// What ids stand for after the requests so far, where they changed it.
    ids: HashMap<u128, Option<KnownId>>,
    removed: HashMap<Sequence, Sequence>,
    /// Rows in quarantine that are facts after the requests so far, by contract.
    resolved: HashMap<Arc<str>, BTreeSet<u64>>,
    /// The bytes of the frames, behind room for the mark of their group.
    pub bytes: Vec<u8>,
    pub frames: Vec<(Frame, usize)>,
    /// Batches for the index, with what they change of ids.
    pub indexed: Vec<(Arc<SequencedBatch>, Vec<IdChange>)>,
    pub answers: Vec<Appended>,
}

/// What one request changes.
#[derive(Default)]
struct Plan {
    /// Rows of the request that are new facts.
    fresh: Vec<u32>,
    duplicates: Vec<usize>,
    conflicts: Vec<usize>,
    unknown: Vec<usize>,
    ids: HashMap<u128, Option<KnownId>>,
    /// Removed facts, with the sequence from which they aren't seen.
    removed: BTreeMap<Sequence, Sequence>,
    /// New and removed facts, with the live fact below them under the same id.
    older: BTreeMap<Sequence, Sequence>,
}

impl Plan {
    fn remove(&mut self, known: &KnownId, at: Sequence) {
        self.removed.insert(known.sequence, at);
        self.note_older(known);
    }

    fn note_older(&mut self, known: &KnownId) {
        if known.older != 0 {
            self.older.insert(known.sequence, known.older);
        }
    }
}

impl<'a> Group<'a> {
    pub fn new(log: &'a EmbeddedFactLog, now: Micros) -> Self {
        Self {
            log,
            now,
            next: log.reader.last_sequence() + 1,
            ids: HashMap::new(),
            removed: HashMap::new(),
            resolved: HashMap::new(),
            bytes: vec![0; MARK_BYTES],
            frames: Vec::new(),
            indexed: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Takes one request.
    pub fn take(&mut self, request: &AppendRequest) -> Result<(), Problem> {
        let contract = request.change.contract();
        self.look_up_resolved(request);
        let (mut plan, facts) = match &request.change {
            Change::Append(batch) => (self.plan_append(batch, request)?, batch.clone()),
            Change::Revise(batch) => (self.plan_revise(batch, request)?, batch.clone()),
            Change::Retract { fact_ids, .. } => (
                self.plan_retract(contract, fact_ids)?,
                nothing(contract.clone()),
            ),
        };
        if request.all_or_nothing && !plan.conflicts.is_empty() {
            plan = Plan {
                conflicts: plan.conflicts,
                ..Plan::default()
            };
        }
        let verdicts = self.verdicts(&plan, request);
        let batch = Arc::new(self.sequenced(&plan, facts)?);
        self.next += batch.len() as u64;
        self.ids
            .extend(plan.ids.iter().map(|(id, known)| (*id, *known)));
        self.removed.extend(&plan.removed);
        let plain = plan.removed.is_empty() && plan.older.is_empty() && verdicts.is_empty();
        if !plain {
            self.put(Frame::Correction(Arc::new(Correction {
                batch: batch.clone(),
                older: plan.older.into_iter().collect(),
                verdicts,
            })))?;
        } else if !batch.is_empty() {
            self.put(Frame::Facts(batch.clone()))?;
        }
        if !batch.is_empty() {
            let ids = plan.ids.into_iter().collect();
            self.indexed.push((batch.clone(), ids));
        }
        if !request.rejected.is_empty() {
            let rows = request.rejected.iter();
            let rows = rows.map(|row| QuarantinedRow::new(contract, row, self.now));
            self.put(Frame::Quarantine(rows.collect()))?;
        }
        self.answers.push(Appended {
            batch: (!batch.is_empty()).then_some(batch),
            duplicates: plan.duplicates,
            conflicts: plan.conflicts,
            unknown: plan.unknown,
            last_sequence: self.next - 1,
        });
        Ok(())
    }

    fn put(&mut self, frame: Frame) -> Result<(), Problem> {
        let before = self.bytes.len();
        frame::put_frame(&mut self.bytes, &frame)?;
        self.frames.push((frame, self.bytes.len() - before));
        Ok(())
    }

    /// Learns which rows of the contract are facts already, where the request mends some.
    fn look_up_resolved(&mut self, request: &AppendRequest) {
        let (contract, mends) = (request.change.contract(), &request.mends);
        let none = mends.rows.is_empty() && mends.again.is_empty();
        if !none && !self.resolved.contains_key(contract) {
            let resolved = self.log.reader.resolved(contract);
            self.resolved.insert(contract.clone(), resolved);
        }
    }

    /// How many rows of a contract the requests so far have put into quarantine.
    fn rejected_here(&self, contract: &str) -> u64 {
        let rows = self.frames.iter().filter_map(|(frame, _)| match frame {
            Frame::Quarantine(rows) => Some(rows),
            _ => None,
        });
        let same = rows.flatten().filter(|row| row.contract == contract);
        same.count() as u64
    }

    /// Whether a row isn't in quarantine, or no longer.
    fn is_resolved(&self, contract: &str, row: u64) -> bool {
        let resolved = self.resolved.get(contract);
        let written = self.log.reader.rejected(contract);
        let known = (1..=written + self.rejected_here(contract)).contains(&row);
        !known || resolved.is_some_and(|resolved| resolved.contains(&row))
    }

    /// What becomes of the rows in quarantine that a request mends.
    fn verdicts(&mut self, plan: &Plan, request: &AppendRequest) -> Vec<Verdict> {
        let contract = request.change.contract();
        let mut verdicts: BTreeMap<u64, Verdict> = BTreeMap::new();
        let mended = request.mends.rows.iter().enumerate().map(|(place, row)| {
            let conflict = plan.conflicts.binary_search(&place).is_ok();
            (*row, conflict.then(Fault::conflict))
        });
        let again = request.mends.again.iter();
        let again = again.map(|(row, fault)| (*row, Some(fault.clone())));
        for (row, fault) in mended.chain(again) {
            if !self.is_resolved(contract, row) {
                if fault.is_none() {
                    self.resolved
                        .entry(contract.clone())
                        .or_default()
                        .insert(row);
                }
                verdicts.insert(row, Verdict { row, fault });
            }
        }
        verdicts.into_values().collect()
    }

    /// The newest live fact with an id, after the requests so far and the present one so far.
    fn known(&self, plan: &Plan, id: u128) -> Result<Option<KnownId>, Problem> {
        match plan.ids.get(&id).or_else(|| self.ids.get(&id)) {
            Some(known) => Ok(*known),
            None => self.log.index.known(id),
        }
    }

    fn plan_append(&self, batch: &FactBatch, request: &AppendRequest) -> Result<Plan, Problem> {
        let window = request.dedup_window.unwrap_or(Micros::MAX);
        let recent = |known: &KnownId| self.now.saturating_sub(known.ingest_time) <= window;
        self.plan_facts(batch, request, |plan, row, payload, known| match known {
            Some(known) if !recent(&known) => Some(known.sequence),
            Some(known) if known.payload == payload => {
                plan.duplicates.push(row);
                None
            }
            Some(_) => {
                plan.conflicts.push(row);
                None
            }
            None => Some(0),
        })
    }

    fn plan_revise(&self, batch: &FactBatch, request: &AppendRequest) -> Result<Plan, Problem> {
        let first_kept = self.log.reader.first_sequence();
        self.plan_facts(batch, request, |plan, row, payload, known| match known {
            Some(known) if known.payload == payload => {
                plan.duplicates.push(row);
                None
            }
            // What its retention let go can't be replaced any more.
            Some(known) if known.sequence >= first_kept => {
                plan.remove(&known, self.next + plan.fresh.len() as u64);
                Some(known.older)
            }
            _ => Some(0),
        })
    }

    /// Goes through the rows of a batch. `judge` says of each, from the newest live fact with its id,
    /// whether it is new and, if so, which live fact stands below it (0 for none).
    fn plan_facts(
        &self,
        batch: &FactBatch,
        request: &AppendRequest,
        judge: impl Fn(&mut Plan, usize, u64, Option<KnownId>) -> Option<Sequence>,
    ) -> Result<Plan, Problem> {
        let mut plan = Plan::default();
        let mends = &request.mends.rows;
        let known_row = |row: usize| {
            let mended = mends.get(row).copied();
            // Of two facts that mend one row the first does.
            let again = |id: &u64| mends[..row].contains(id);
            mended.is_some_and(|id| again(&id) || self.is_resolved(&batch.contract, id))
        };
        let Some(fact_ids) = &batch.fact_ids else {
            let (known, fresh) = (0..batch.len()).partition(|row| known_row(*row));
            plan.duplicates = known;
            plan.fresh = Vec::<usize>::into_iter(fresh)
                .map(|row| row as u32)
                .collect();
            return Ok(plan);
        };
        let payloads = payload_hashes(&batch.columns, batch.unknown_fields.as_ref());
        for (row, payload) in payloads.into_iter().enumerate() {
            if known_row(row) {
                plan.duplicates.push(row);
                continue;
            }
            let id = id_hash(&batch.contract, fact_ids.value(row));
            let known = self.known(&plan, id)?;
            let Some(older) = judge(&mut plan, row, payload, known) else {
                continue;
            };
            let fresh = KnownId {
                sequence: self.next + plan.fresh.len() as u64,
                payload,
                ingest_time: self.now,
                older,
            };
            plan.note_older(&fresh);
            plan.ids.insert(id, Some(fresh));
            plan.fresh.push(row as u32);
        }
        Ok(plan)
    }

    fn plan_retract(&self, contract: &str, fact_ids: &[String]) -> Result<Plan, Problem> {
        let mut plan = Plan::default();
        for (place, text) in fact_ids.iter().enumerate() {
            let at = self.next + plan.removed.len() as u64;
            let id = id_hash(contract, text);
            match self.known(&plan, id)? {
                Some(known) if known.sequence >= self.log.reader.first_sequence() => {
                    plan.remove(&known, at);
                    let below = self.known_of(known.older)?;
                    plan.ids.insert(id, below);
                }
                _ => match self.by_sequence(&plan, contract, text)? {
                    Some(sequence) => {
                        plan.removed.insert(sequence, at);
                    }
                    None => plan.unknown.push(place),
                },
            }
        }
        Ok(plan)
    }

    /// The live fact without an id of its own that a text names by its sequence.
    fn by_sequence(
        &self,
        plan: &Plan,
        contract: &str,
        text: &str,
    ) -> Result<Option<Sequence>, Problem> {
        let sequence = match text.parse::<Sequence>() {
            Ok(sequence) if sequence.to_string() == text => sequence,
            _ => return Ok(None),
        };
        let gone = plan.removed.contains_key(&sequence)
            || self.removed.contains_key(&sequence)
            || self.log.index.removed_at(sequence)?.is_some();
        if gone {
            return Ok(None);
        }
        let Some(frame) = self.frame_of(sequence)? else {
            return Ok(None);
        };
        let named = frame.batch().is_some_and(|batch| {
            let facts = &batch.batch;
            let fact = sequence - batch.first_sequence < facts.len() as u64;
            fact && facts.contract.as_ref() == contract && facts.fact_ids.is_none()
        });
        Ok(named.then_some(sequence))
    }

    /// The frame that holds a sequence: of this group, or of the log.
    fn frame_of(&self, sequence: Sequence) -> Result<Option<Frame>, Problem> {
        let own = self.frames.iter().map(|(frame, _)| frame);
        match own.into_iter().find(|frame| holds(frame, sequence)) {
            Some(frame) => Ok(Some(frame.clone())),
            None => self.log.frame_of(sequence),
        }
    }

    fn known_of(&self, sequence: Sequence) -> Result<Option<KnownId>, Problem> {
        match sequence {
            0 => Ok(None),
            sequence => match self.frame_of(sequence)? {
                Some(frame) => known_in(&frame, sequence),
                None => Ok(None),
            },
        }
    }

    /// The batch that a plan makes of a request's facts; empty where it changes nothing.
    fn sequenced(&self, plan: &Plan, facts: FactBatch) -> Result<SequencedBatch, Problem> {
        let facts = match plan.fresh.len() < facts.len() {
            true => take(&facts, &plan.fresh)?,
            false => facts,
        };
        let mut batch = SequencedBatch {
            first_sequence: self.next,
            ingest_time: self.now,
            batch: facts,
            removed: Vec::new(),
        };
        if !plan.removed.is_empty() {
            // A request may revise what it has just added.
            let own = Arc::new(batch.clone());
            let removals: Vec<_> = plan.removed.iter().map(|(s, at)| (*s, *at)).collect();
            batch.removed = removed_facts(&removals, |sequence| {
                if sequence >= own.first_sequence {
                    return Ok(own.clone());
                }
                let frame = self.frame_of(sequence)?;
                let found = frame.and_then(|frame| frame.batch().cloned());
                found.ok_or_else(|| missing(sequence))
            })?;
        }
        Ok(batch)
    }
}

/// Whether a frame takes a sequence.
pub fn holds(frame: &Frame, sequence: Sequence) -> bool {
    frame.batch().is_some_and(|batch| {
        batch.first_sequence <= sequence && sequence <= batch.last_sequence() && !batch.is_empty()
    })
}

/// What the fact of a sequence says of its id; none where it has no id of its own.
pub fn known_in(frame: &Frame, sequence: Sequence) -> Result<Option<KnownId>, Problem> {
    let Some(batch) = frame.batch() else {
        return Ok(None);
    };
    let row = sequence.saturating_sub(batch.first_sequence);
    if row >= batch.batch.len() as u64 || batch.batch.fact_ids.is_none() {
        return Ok(None);
    }
    let fact = take(&batch.batch, &[row as u32])?;
    let payload = payload_hashes(&fact.columns, fact.unknown_fields.as_ref());
    Ok(payload.first().map(|payload| KnownId {
        sequence,
        payload: *payload,
        ingest_time: batch.ingest_time,
        older: frame.older(sequence),
    }))
}

/// What a stored frame changes of ids, in order: the same that its writing changed.
pub fn id_changes(log: &EmbeddedFactLog, frame: &Frame) -> Result<Vec<IdChange>, Problem> {
    let Some(batch) = frame.batch() else {
        return Ok(Vec::new());
    };
    let facts = &batch.batch;
    let hash = |facts: &FactBatch, row: usize| {
        let ids = facts.fact_ids.as_ref()?;
        Some(id_hash(&facts.contract, ids.value(row)))
    };
    // (sequence, whether it is a new fact, change): a revision takes out first.
    let mut changes: Vec<(Sequence, bool, IdChange)> = Vec::new();
    for removed in &batch.removed {
        for (row, sequence) in removed.sequences.iter().enumerate() {
            if let Some(id) = hash(&removed.facts, row) {
                let below = match frame.older(*sequence) {
                    0 => None,
                    older => match log.frame_of(older)? {
                        Some(frame) => known_in(&frame, older)?,
                        None => None,
                    },
                };
                changes.push((removed.removed_at[row], false, (id, below)));
            }
        }
    }
    let payloads = match &facts.fact_ids {
        Some(_) => payload_hashes(&facts.columns, facts.unknown_fields.as_ref()),
        None => Vec::new(),
    };
    for (row, payload) in payloads.into_iter().enumerate() {
        let sequence = batch.first_sequence + row as u64;
        let known = KnownId {
            sequence,
            payload,
            ingest_time: batch.ingest_time,
            older: frame.older(sequence),
        };
        if let Some(id) = hash(facts, row) {
            changes.push((sequence, true, (id, Some(known))));
        }
    }
    changes.sort_by_key(|(sequence, fresh, _)| (*sequence, *fresh));
    Ok(changes.into_iter().map(|(_, _, change)| change).collect())
}
