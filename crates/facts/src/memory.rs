//! A fact log in memory: for tests, and for facts whose truth lies elsewhere. Plainly what a [`FactLog`] promises: it
//! looks facts up by their ids and their entities, and goes through all it holds for any other question.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use headwater_env::Env;
use headwater_schema::{
    EntityKey, FactBatch, Micros, Position, Problem, Sequence, SequencedBatch, Value,
};

use crate::found::{missing, removed_facts, take};
use crate::row_hash::payload_hashes;
use crate::{
    AppendRequest, Appended, Change, FactLog, Fault, FoundFacts, FoundRun, IndexSpec, KeptFacts,
    Lookup, QuarantineQuery, QuarantinedRow, Restored,
};

/// Holds everything in lists.
pub struct MemoryFactLog {
    env: Env,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What was appended here.
    batches: Vec<Arc<SequencedBatch>>,
    /// Where facts lie.
    runs: Vec<FactBatch>,
    /// By ascending sequence.
    facts: Vec<Fact>,
    /// The places in `facts` of those that have had an id, oldest first; by contract and id.
    by_id: HashMap<Arc<str>, HashMap<String, Vec<usize>>>,
    by_key: HashMap<IndexSpec, Postings>,
    rejected: Vec<QuarantinedRow>,
    dropped: BTreeMap<String, Micros>,
    /// One less than the oldest sequence that is kept.
    before: Sequence,
    last: Sequence,
    last_ingest_time: Micros,
}

/// The facts of entities, as far as they have been looked at.
#[derive(Default)]
struct Postings {
    upto: usize,
    places: HashMap<EntityKey, Vec<usize>>,
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
    /// Where it lies.
    run: usize,
    row: u32,
}

impl MemoryFactLog {
    pub fn new(env: Env) -> Self {
        Self {
            env,
            inner: Mutex::default(),
        }
    }

    /// A log that goes on from what another knew. The facts of that one are looked up as its own are, and their ids are
    /// known; [`FactLog::read`] gives only what is appended here.
    pub fn restored(env: Env, restored: Restored) -> Result<Self, Problem> {
        let mut inner = Inner {
            before: restored.sequences.0.saturating_sub(1),
            last: restored.sequences.1,
            dropped: restored.dropped,
            last_ingest_time: restored.ingest_time,
            ..Inner::default()
        };
        for kept in restored.facts {
            inner.restore(kept)?;
        }
        inner.facts.sort_by_key(|fact| fact.position.sequence);
        let mut pairs = inner.facts.windows(2);
        let twice = pairs.find(|pair| pair[0].position.sequence == pair[1].position.sequence);
        let newest = inner.facts.last().map_or(0, |f| f.position.sequence);
        if twice.is_some() || newest > inner.last {
            return Err(Problem::external(
                "corrupt-facts",
                "facts don't have places of their own in the log",
            ));
        }
        inner.index_ids();
        Ok(Self {
            env,
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the newest live fact of a contract with an id is.
    pub fn live(&self, contract: &str, id: &str) -> Option<Position> {
        let inner = self.inner();
        let place = inner.with_id(contract, id)?;
        Some(inner.facts[place].position)
    }

    /// As [`FactLog::append`] of one request, at a moment: for what is told again.
    pub fn append_at(&self, request: &AppendRequest, now: Micros) -> Result<Appended, Problem> {
        let mut inner = self.inner();
        let now = now.max(inner.last_ingest_time);
        inner.last_ingest_time = now;
        inner.append(request, now)
    }
}

impl Inner {
    fn restore(&mut self, kept: KeptFacts) -> Result<(), Problem> {
        let KeptFacts {
            facts,
            sequences,
            ingest_times,
        } = kept;
        if sequences.len() != facts.len() || ingest_times.len() != facts.len() {
            let title = "facts don't have a place in the log each";
            return Err(Problem::external("corrupt-facts", title));
        }
        let payloads = payload_hashes(&facts.columns, facts.unknown_fields.as_ref());
        for (row, payload) in payloads.into_iter().enumerate() {
            self.facts.push(Fact {
                contract: facts.contract.clone(),
                id: facts.fact_ids.as_ref().map(|ids| ids.value(row).to_owned()),
                payload,
                position: Position::new(facts.event_times[row], sequences[row]),
                ingest_time: ingest_times[row],
                removed_at: None,
                run: self.runs.len(),
                row: row as u32,
            });
        }
        self.runs.push(facts);
        Ok(())
    }

    fn index_ids(&mut self) {
        self.by_id.clear();
        for place in 0..self.facts.len() {
            self.index_id(place);
        }
    }

    fn index_id(&mut self, place: usize) {
        let Fact { contract, id, .. } = &self.facts[place];
        if let Some(id) = id {
            let ids = self.by_id.entry(contract.clone()).or_default();
            ids.entry(id.clone()).or_default().push(place);
        }
    }

    /// A batch that holds a fact, and no other.
    fn batch_of(&self, sequence: Sequence) -> Result<Arc<SequencedBatch>, Problem> {
        let found = self
            .facts
            .binary_search_by_key(&sequence, |f| f.position.sequence);
        let fact = &self.facts[found.map_err(|_| missing(sequence))?];
        Ok(Arc::new(SequencedBatch {
            first_sequence: sequence,
            ingest_time: fact.ingest_time,
            batch: take(&self.runs[fact.run], &[fact.row])?,
            removed: Vec::new(),
        }))
    }

    /// The newest live fact of a contract with an id, by its place in the list.
    fn with_id(&self, contract: &str, id: &str) -> Option<usize> {
        let places = self.by_id.get(contract)?.get(id)?;
        let live = |place: &&usize| self.facts[**place].removed_at.is_none();
        places.iter().rev().find(live).copied()
    }

    fn with_sequence(&self, contract: &str, text: &str) -> Option<usize> {
        let sequence: Sequence = text.parse().ok()?;
        let found = self
            .facts
            .binary_search_by_key(&sequence, |f| f.position.sequence);
        let place = found.ok().filter(|_| sequence.to_string() == text)?;
        let fact = &self.facts[place];
        let own = fact.id.is_none() && fact.contract.as_ref() == contract;
        (own && fact.removed_at.is_none()).then_some(place)
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
        let before = self.last;
        // What a refusal of the whole request goes back to.
        let whole = request.all_or_nothing.then(|| self.facts.clone());
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
        if let Some(facts) = whole.filter(|_| !answer.conflicts.is_empty()) {
            (self.facts, self.last) = (facts, before);
            self.index_ids();
            answer.duplicates.clear();
            (fresh, removals) = (Vec::new(), Vec::new());
        }
        if !fresh.is_empty() || !removals.is_empty() {
            self.runs.push(facts.clone());
            let batch = Arc::new(SequencedBatch {
                first_sequence: before + 1,
                ingest_time: now,
                batch: facts,
                removed: removed_facts(&removals, |sequence| self.batch_of(sequence))?,
            });
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
            let place = (self.runs.len(), fresh.len() as u32);
            fresh.push(row as u32);
            self.facts.push(Fact {
                contract: batch.contract.clone(),
                id,
                payload,
                position: Position::new(batch.event_times[row], self.last),
                ingest_time: now,
                removed_at: None,
                run: place.0,
                row: place.1,
            });
            self.index_id(self.facts.len() - 1);
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

    /// The places of the facts of one entity, ascending.
    fn of_entity(&mut self, lookup: &Lookup) -> &[usize] {
        let spec = IndexSpec {
            contract: lookup.contract.clone(),
            key_columns: lookup.key_columns.clone(),
        };
        let postings = self.by_key.entry(spec).or_default();
        for place in postings.upto..self.facts.len() {
            let fact = &self.facts[place];
            if fact.contract != lookup.contract {
                continue;
            }
            let columns = &self.runs[fact.run].columns;
            let value = |name: &Arc<str>| {
                let column = columns.column_by_name(name);
                column.map_or(Value::Null, |c| Value::from_array(c, fact.row as usize))
            };
            let values: Vec<Value> = lookup.key_columns.iter().map(value).collect();
            if let Some(key) = EntityKey::from_values(&values) {
                postings.places.entry(key).or_default().push(place);
            }
        }
        postings.upto = self.facts.len();
        postings.places.get(&lookup.key).map_or(&[], Vec::as_slice)
    }

    /// The facts at places, in that order.
    fn found(&self, places: &[usize]) -> Result<FoundFacts, Problem> {
        // Facts that lie and arrived together.
        let mut together: BTreeMap<(usize, Micros), Vec<usize>> = BTreeMap::new();
        for (order, place) in places.iter().enumerate() {
            let Fact {
                run, ingest_time, ..
            } = self.facts[*place];
            together.entry((run, ingest_time)).or_default().push(order);
        }
        let mut found = FoundFacts {
            runs: Vec::with_capacity(together.len()),
            order: vec![(0, 0); places.len()],
        };
        for ((run, ingest_time), orders) in together {
            for (row, order) in orders.iter().enumerate() {
                found.order[*order] = (found.runs.len(), row);
            }
            let facts = || orders.iter().map(|order| &self.facts[places[*order]]);
            let rows: Vec<u32> = facts().map(|fact| fact.row).collect();
            let taken = take(&self.runs[run], &rows)?;
            found.runs.push(FoundRun {
                sequences: facts().map(|fact| fact.position.sequence).collect(),
                ingest_time,
                event_times: taken.event_times,
                fact_ids: taken.fact_ids.map(|ids| {
                    let texts = ids.iter().map(|id| id.unwrap_or_default().to_owned());
                    texts.collect()
                }),
                columns: taken.columns,
            });
        }
        Ok(found)
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
        let inner = self.inner();
        (inner.before + 1, inner.last)
    }

    fn newest_dropped(&self, contract: &str) -> Option<Micros> {
        // It keeps all that it was given.
        self.inner().dropped.get(contract).copied()
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
        let mut inner = self.inner();
        let places = inner.of_entity(lookup).to_vec();
        let mut found = BTreeSet::new();
        for place in places {
            let fact = &inner.facts[place];
            let known = fact.position.sequence <= lookup.known_at
                && fact.removed_at.is_none_or(|at| lookup.known_at < at);
            let within = lookup.from <= fact.position && fact.position < lookup.until;
            if known && within {
                found.insert((fact.position, place));
            }
        }
        let surplus = found
            .len()
            .saturating_sub(lookup.newest.unwrap_or(usize::MAX));
        let places: Vec<usize> = found.into_iter().skip(surplus).map(|(_, p)| p).collect();
        inner.found(&places)
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
