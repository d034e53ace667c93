//! A fact log in memory: for tests, and for facts that needn't outlive the process. It goes through all
//! it holds for every question: slow, and plainly what a [`FactLog`] promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use headwater_env::Env;
use headwater_schema::{
    EntityKey, FactBatch, Micros, Position, Problem, Sequence, SequencedBatch, Value,
};

use crate::found::{fetch, missing, removed_facts, take};
use crate::row_hash::payload_hashes;
use crate::{
    AppendRequest, Appended, Change, FactLog, Fault, FoundFacts, IndexSpec, Lookup,
    QuarantineQuery, QuarantinedRow,
};

/// Holds everything in lists.
pub struct MemoryFactLog {
    env: Env,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    batches: Vec<Arc<SequencedBatch>>,
    facts: Vec<Fact>,
    rejected: Vec<QuarantinedRow>,
    last: Sequence,
    last_ingest_time: Micros,
}

/// What is known of one fact.
#[derive(Clone)]
struct Fact {
    contract: Arc<str>,
    /// None where its sequence is its id.
    id: Option<String>,
    payload: u64,
    position: Position,
    ingest_time: Micros,
    removed_at: Option<Sequence>,
}

impl MemoryFactLog {
    pub fn new(env: Env) -> Self {
        Self {
            env,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn batch_of(&self, sequence: Sequence) -> Result<Arc<SequencedBatch>, Problem> {
        let holds = |b: &&Arc<SequencedBatch>| {
            b.first_sequence <= sequence && sequence <= b.last_sequence()
        };
        let batch = self.batches.iter().find(holds);
        batch.cloned().ok_or_else(|| missing(sequence))
    }

    /// The newest live fact of a contract that is named so, by its place in the list.
    fn newest_live(&self, contract: &str, named: impl Fn(&Fact) -> bool) -> Option<usize> {
        self.facts.iter().rposition(|fact| {
            fact.removed_at.is_none() && fact.contract.as_ref() == contract && named(fact)
        })
    }

    fn with_id(&self, contract: &str, id: &str) -> Option<usize> {
        self.newest_live(contract, |fact| fact.id.as_deref() == Some(id))
    }

    fn with_sequence(&self, contract: &str, text: &str) -> Option<usize> {
        self.newest_live(contract, |fact| {
            fact.id.is_none() && fact.position.sequence.to_string() == text
        })
    }

    fn quarantine(&mut self, contract: &str, id: u64) -> Option<&mut QuarantinedRow> {
        let mut rows = self.rejected.iter_mut();
        rows.find(|row| row.contract == contract && row.id == id)
    }

    fn is_settled(&mut self, contract: &str, id: u64) -> bool {
        let row = self.quarantine(contract, id);
        row.is_none_or(|row| row.resolved.is_some())
    }

    fn append(&mut self, request: &AppendRequest, now: Micros) -> Result<Appended, Problem> {
        let before = (self.facts.clone(), self.last);
        let mut answer = Appended::default();
        let (mut fresh, mut removals) = (Vec::new(), Vec::new());
        let facts = match &request.change {
            Change::Append(batch) | Change::Revise(batch) => {
                self.take_facts(batch, request, now, &mut answer, &mut fresh, &mut removals);
                take(batch, &fresh)?
            }
            Change::Retract { contract, fact_ids } => {
                for (place, id) in fact_ids.iter().enumerate() {
                    let named = self.with_id(contract, id);
                    match named.or_else(|| self.with_sequence(contract, id)) {
                        Some(index) => {
                            self.last += 1;
                            self.end(index, &mut removals);
                        }
                        None => answer.unknown.push(place),
                    }
                }
                nothing(contract.clone())
            }
        };
        if request.all_or_nothing && !answer.conflicts.is_empty() {
            (self.facts, self.last) = before;
            answer.duplicates.clear();
            (fresh, removals) = (Vec::new(), Vec::new());
        }
        if !fresh.is_empty() || !removals.is_empty() {
            let batch = SequencedBatch {
                first_sequence: before.1 + 1,
                ingest_time: now,
                batch: facts,
                removed: Vec::new(),
            };
            self.batches.push(Arc::new(batch.clone()));
            let removed = removed_facts(&removals, |sequence| self.batch_of(sequence))?;
            self.batches.pop();
            let batch = Arc::new(SequencedBatch { removed, ..batch });
            self.batches.push(batch.clone());
            answer.batch = Some(batch);
        }
        self.judge(request, &answer, now);
        answer.last_sequence = self.last;
        Ok(answer)
    }

    fn take_facts(
        &mut self,
        batch: &FactBatch,
        request: &AppendRequest,
        now: Micros,
        answer: &mut Appended,
        fresh: &mut Vec<u32>,
        removals: &mut Vec<(Sequence, Sequence)>,
    ) {
        let revise = matches!(request.change, Change::Revise(_));
        let payloads = payload_hashes(&batch.columns, batch.unknown_fields.as_ref());
        for (row, payload) in payloads.into_iter().enumerate() {
            let mended = request.mends.rows.get(row);
            let again = |id: &u64| request.mends.rows[..row].contains(id);
            if mended.is_some_and(|id| again(id) || self.is_settled(&batch.contract, *id)) {
                answer.duplicates.push(row);
                continue;
            }
            let id = batch.fact_ids.as_ref().map(|ids| ids.value(row).to_owned());
            let known = id.as_ref().and_then(|id| self.with_id(&batch.contract, id));
            let mut replaced = None;
            if let Some(index) = known {
                let window = request.dedup_window.unwrap_or(Micros::MAX);
                let recent = now.saturating_sub(self.facts[index].ingest_time) <= window;
                let same = self.facts[index].payload == payload;
                if same && (revise || recent) {
                    answer.duplicates.push(row);
                    continue;
                }
                if !revise && recent {
                    answer.conflicts.push(row);
                    continue;
                }
                replaced = revise.then_some(index);
            }
            self.last += 1;
            if let Some(index) = replaced {
                self.end(index, removals);
            }
            fresh.push(row as u32);
            self.facts.push(Fact {
                contract: batch.contract.clone(),
                id,
                payload,
                position: Position::new(batch.event_times[row], self.last),
                ingest_time: now,
                removed_at: None,
            });
        }
    }

    /// A fact counts no longer from the present sequence on.
    fn end(&mut self, index: usize, removals: &mut Vec<(Sequence, Sequence)>) {
        let fact = &mut self.facts[index];
        fact.removed_at = Some(self.last);
        removals.push((fact.position.sequence, self.last));
    }

    /// Puts rejected rows into quarantine, and notes what became of rows that were there.
    fn judge(&mut self, request: &AppendRequest, answer: &Appended, now: Micros) {
        let contract = request.change.contract().to_string();
        let mends = request.mends.rows.iter().enumerate().map(|(row, id)| {
            let conflict = answer.conflicts.contains(&row);
            (*id, conflict.then(Fault::conflict))
        });
        let again = request.mends.again.iter();
        let again = again.map(|(id, fault)| (*id, Some(fault.clone())));
        // A request may name a row twice: what it says last counts, until the row is resolved.
        let mut verdicts: BTreeMap<u64, Option<Fault>> = BTreeMap::new();
        for (id, fault) in mends.chain(again) {
            let resolved = matches!(verdicts.get(&id), Some(None));
            if !resolved && !self.is_settled(&contract, id) {
                verdicts.insert(id, fault);
            }
        }
        for (id, fault) in verdicts {
            if let Some(row) = self.quarantine(&contract, id) {
                match fault {
                    Some(fault) => row.fault = fault,
                    None => row.resolved = Some(now),
                }
            }
        }
        for rejected in &request.rejected {
            let mut row = QuarantinedRow::new(&contract, rejected, now);
            let same = self.rejected.iter().filter(|r| r.contract == contract);
            row.id = same.count() as u64 + 1;
            self.rejected.push(row);
        }
    }

    /// Whether a fact has a key.
    fn has_key(&self, fact: &Fact, lookup: &Lookup) -> Result<bool, Problem> {
        let sequence = fact.position.sequence;
        let batch = self.batch_of(sequence)?;
        let row = (sequence - batch.first_sequence) as usize;
        let columns = &batch.batch.columns;
        let value = |name: &Arc<str>| {
            let column = columns.column_by_name(name);
            column.map_or(Value::Null, |column| Value::from_array(column, row))
        };
        let values: Vec<Value> = lookup.key_columns.iter().map(value).collect();
        Ok(EntityKey::from_values(&values).is_some_and(|key| key == lookup.key))
    }
}

/// A batch of no facts of a contract.
pub fn nothing(contract: Arc<str>) -> FactBatch {
    FactBatch {
        contract,
        columns: RecordBatch::new_empty(Arc::new(Schema::empty())),
        event_times: Vec::new(),
        fact_ids: None,
        unknown_fields: None,
    }
}

impl FactLog for MemoryFactLog {
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        let mut inner = self.inner();
        let now = self.env.clock.now().max(inner.last_ingest_time);
        inner.last_ingest_time = now;
        group.iter().map(|r| inner.append(r, now)).collect()
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        let (mut read, mut facts) = (Vec::new(), 0);
        for batch in &self.inner().batches {
            if batch.last_sequence() >= from && facts < facts_max.max(1) {
                facts += batch.len();
                read.push(batch.clone());
            }
        }
        Ok(read)
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        (1, self.inner().last)
    }

    fn newest_dropped(&self, _: &str) -> Option<Micros> {
        // It keeps all.
        None
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        let inner = self.inner();
        let facts = inner.facts.iter();
        let same = facts.filter(|fact| fact.contract.as_ref() == contract);
        same.map(|fact| fact.position.event_time.min(fact.ingest_time))
            .max()
    }

    fn is_indexed(&self, _: &IndexSpec) -> bool {
        true
    }

    fn lookup(&self, lookup: &Lookup) -> Result<FoundFacts, Problem> {
        let inner = self.inner();
        let mut found = BTreeSet::new();
        for fact in inner.facts.iter().filter(|f| f.contract == lookup.contract) {
            let known = fact.position.sequence <= lookup.known_at
                && fact.removed_at.is_none_or(|at| lookup.known_at < at);
            let within = lookup.from <= fact.position && fact.position < lookup.until;
            if known && within && inner.has_key(fact, lookup)? {
                found.insert(fact.position);
            }
        }
        let surplus = found
            .len()
            .saturating_sub(lookup.newest.unwrap_or(usize::MAX));
        let positions: Vec<Position> = found.into_iter().skip(surplus).collect();
        fetch(&positions, |sequence| inner.batch_of(sequence))
    }

    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        let inner = self.inner();
        let asked = |row: &&QuarantinedRow| {
            let named = query.ids.as_ref().is_none_or(|ids| ids.contains(&row.id));
            let open = query.resolved || row.resolved.is_none();
            row.contract == query.contract.as_ref() && named && open
        };
        let rows = inner.rejected.iter().rev().filter(asked).take(query.limit);
        Ok(rows.cloned().collect())
    }
}
