//! Moments and facts in memory, entity by entity.

use std::sync::Arc;

use headwater_aggregate::{EntityState, InputBatch, Layout};
use headwater_features::{ForwardPlan, PlacedFact, ReadPlan, Said};
use headwater_schema::{Cursor, Position, Problem, Sequence};

use super::entities::Entities;
use super::results::Results;

/// About how many bytes a fact takes beside its batch: its entity, and its place once it is grouped.
const FACT_BYTES: usize = size_of::<u32>() + size_of::<Place>();
/// The entity of moments that are of none.
const NOBODY: u32 = u32::MAX;

/// What is known of the entities that moments ask for.
#[derive(Default)]
pub(super) struct Held {
    entities: Entities,
    moments: Vec<Asked>,
    batches: Vec<InputBatch>,
    /// The entity of each fact, batch by batch.
    facts: Vec<u32>,
    removed: Vec<Removed>,
    /// Of the batches.
    bytes: usize,
}

struct Asked {
    row: u64,
    entity: u32,
    cursor: Cursor,
}

/// The batch and the row in it where a fact lies.
type Place = (u32, u32);

/// A fact that counts no longer, and since when.
type Removed = (u32, Position, Sequence);

impl Held {
    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
            + self.entities.bytes()
            + self.moments.len() * size_of::<Asked>()
            + self.facts.len() * FACT_BYTES
            + self.removed.len() * size_of::<Removed>()
    }

    /// How many entities there are.
    pub(super) fn entities(&self) -> usize {
        self.entities.len()
    }

    pub(super) fn moment(&mut self, row: u64, key: Option<&[u8]>, cursor: &Cursor) {
        self.moments.push(Asked {
            row,
            entity: key.map_or(NOBODY, |key| self.entities.meet(key)),
            cursor: *cursor,
        });
    }

    /// Takes those facts whose entities are asked for.
    pub(super) fn facts<'k>(
        &mut self,
        key: impl Fn(usize) -> &'k [u8],
        facts: InputBatch,
    ) -> Result<(), Problem> {
        let rows = facts.sequences.len();
        let mut asked = Vec::new();
        for row in 0..rows {
            if let Some(entity) = self.entities.get(key(row)) {
                self.facts.push(entity);
                asked.push(row as u32);
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        // A copy leaves the memory of the others free.
        let kept = match asked.len() == rows {
            true => facts,
            false => facts.take(&asked)?,
        };
        self.bytes += kept.size_bytes();
        self.batches.push(kept);
        Ok(())
    }

    pub(super) fn removed(&mut self, key: &[u8], position: Position, since: Sequence) {
        if let Some(entity) = self.entities.get(key) {
            self.removed.push((entity, position, since));
        }
    }

    /// The keys of the entities, each at its number.
    pub(super) fn keys(&self) -> Vec<&[u8]> {
        let numbers = 0..self.entities.len() as u32;
        numbers.map(|number| self.entities.key(number)).collect()
    }

    pub(super) fn each_moment(&self) -> impl Iterator<Item = (u64, Option<&[u8]>, &Cursor)> {
        self.moments.iter().map(|moment| {
            let somebody = moment.entity != NOBODY;
            let key = somebody.then(|| self.entities.key(moment.entity));
            (moment.row, key, &moment.cursor)
        })
    }

    pub(super) fn each_fact(&self) -> impl Iterator<Item = (&[u8], &InputBatch, usize)> {
        let places = places(&self.batches).zip(&self.facts);
        places.map(|((batch, row), entity)| {
            let key = self.entities.key(*entity);
            (key, &self.batches[batch as usize], row as usize)
        })
    }

    pub(super) fn each_removed(&self) -> impl Iterator<Item = (&[u8], Position, Sequence)> {
        let removed = self.removed.iter();
        removed.map(|(entity, position, since)| (self.entities.key(*entity), *position, *since))
    }

    /// Reads the plan's features at every moment.
    pub(super) fn read(mut self, plan: &ReadPlan, results: &mut Results) -> Result<(), Problem> {
        let entities = self.entities.len();
        let place = |entity: u32| (entity as usize).min(entities);
        let moments = self.moments.iter();
        let asked = moments.zip(0u32..).map(|(m, at)| (place(m.entity), at));
        let asked = Grouped::new(entities + 1, asked);
        // They keep the order among themselves: facts of one source that of their sequences.
        let facts = self.facts.iter().map(|entity| place(*entity));
        let facts = Grouped::new(entities + 1, facts.zip(places(&self.batches)));
        self.removed.sort_unstable();
        let mut removed = self.removed.as_slice();
        let batches: Arc<[InputBatch]> = self.batches.into();
        results.read_from(&batches);
        let mut reading = Reading::new(plan, &batches, results);
        let mut known = Known {
            batches: &batches,
            facts: Vec::new(),
            removed,
        };
        let mut moments: Vec<&Asked> = Vec::new();
        for number in 0..=entities {
            let gone = removed.partition_point(|(entity, ..)| place(*entity) <= number);
            (known.removed, removed) = removed.split_at(gone);
            known.facts.clear();
            known
                .facts
                .extend(facts.of(number).iter().map(|(batch, row)| PlacedFact {
                    position: batches[*batch as usize].position(*row as usize),
                    batch: *batch,
                    row: *row,
                }));
            moments.clear();
            let here = asked.of(number).iter();
            moments.extend(here.map(|at| &self.moments[*at as usize]));
            moments.sort_by_key(|m| (m.cursor.as_of, m.cursor.until));
            reading.read(&known, &moments)?;
        }
        Ok(())
    }
}

/// Where each fact lies, batch by batch.
fn places(batches: &[InputBatch]) -> impl Iterator<Item = Place> + Clone {
    let batches = batches.iter().zip(0u32..);
    batches
        .flat_map(|(facts, batch)| (0..facts.sequences.len() as u32).map(move |row| (batch, row)))
}

/// Items, group by group, in their order.
struct Grouped<T> {
    /// Where each group ends in `items`.
    ends: Vec<usize>,
    items: Vec<T>,
}

impl<T: Copy + Default> Grouped<T> {
    /// Of items and the groups that they are of, which are gone through twice.
    fn new(groups: usize, items: impl Iterator<Item = (usize, T)> + Clone) -> Self {
        let mut next = vec![0; groups + 1];
        let mut count = 0;
        for (group, _) in items.clone() {
            next[group + 1] += 1;
            count += 1;
        }
        for group in 0..groups {
            next[group + 1] += next[group];
        }
        let mut grouped = vec![T::default(); count];
        for (group, item) in items {
            grouped[next[group]] = item;
            next[group] += 1;
        }
        next.pop();
        Self {
            ends: next,
            items: grouped,
        }
    }

    fn of(&self, group: usize) -> &[T] {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start..self.ends[group]]
    }
}

/// What is known of one entity.
struct Known<'a> {
    batches: &'a [InputBatch],
    /// Source by source, each in the order of the sequences.
    facts: Vec<PlacedFact>,
    /// In the order of the positions.
    removed: &'a [Removed],
}

/// Reads entities.
struct Reading<'a, 'r> {
    plan: &'a ReadPlan,
    /// The column of each feature of the view.
    columns: Vec<usize>,
    windowed: Vec<usize>,
    forward: ForwardPlan<'a>,
    results: &'r mut Results,
}

impl<'a, 'r> Reading<'a, 'r> {
    fn new(plan: &'a ReadPlan, batches: &'a [InputBatch], results: &'r mut Results) -> Self {
        let windowed = plan.windowed();
        let mut columns = vec![0; plan.view().features.len()];
        for (column, feature) in windowed.iter().enumerate() {
            columns[*feature] = column;
        }
        Self {
            plan,
            columns,
            windowed,
            forward: plan.forward(batches),
            results,
        }
    }

    /// Reads at moments in the order of their time.
    fn read(&mut self, known: &Known<'_>, moments: &[&Asked]) -> Result<(), Problem> {
        let newest = known.newest();
        let knows_all = |m: &&Asked| newest.is_none_or(|newest| newest <= m.cursor.known_at);
        if moments.iter().all(knows_all) {
            return self.read_present(known, moments.iter().copied());
        }
        // A row of a request that was logged knows less than there is now, and yet all that lies before it.
        let changes = known.changes();
        let knows_before =
            |m: &&Asked| newest_before(&changes, m.cursor.until) <= m.cursor.known_at;
        let moments = moments.iter().copied();
        let (present, past): (Vec<_>, Vec<_>) = moments.partition(knows_before);
        if !present.is_empty() {
            self.read_present(known, present.into_iter())?;
        }
        match past.is_empty() {
            true => Ok(()),
            false => self.read_past(known, &past),
        }
    }

    /// Reads moments that know all that ever became of what lies before them.
    fn read_present<'m>(
        &mut self,
        known: &Known<'_>,
        moments: impl Iterator<Item = &'m Asked>,
    ) -> Result<(), Problem> {
        match known.in_order() {
            true => self.forward.begin(known.facts.iter().copied()),
            false => {
                let facts = known.counted_at(Sequence::MAX);
                self.forward.begin(facts.into_iter());
            }
        }
        for moment in moments {
            let (results, columns) = (&mut *self.results, &self.columns);
            results.begin_row(moment.row)?;
            self.forward.read(&moment.cursor, |said| match said {
                Said::Latest(group, picked) => results.pick(group, picked),
                Said::Value(feature, value, counted) => {
                    results.say(columns[feature], value, counted);
                }
            });
        }
        Ok(())
    }

    /// Reads moments that don't.
    fn read_past(&mut self, known: &Known<'_>, moments: &[&Asked]) -> Result<(), Problem> {
        let layout = &self.plan.view().layout;
        let state = known.state_with_past(layout);
        for moment in moments {
            let cursor = &moment.cursor;
            let read = self.plan.read(Some(&state), cursor, None).whole();
            let read = read.or_else(|| {
                // More was removed than a state keeps beside its facts.
                let facts = known.counted_at(cursor.known_at);
                let facts = facts.iter().map(|fact| known.row(fact));
                let state = EntityState::of_sorted(layout, facts);
                self.plan.read(Some(&state), cursor, None).whole()
            });
            let outcomes = read.ok_or_else(|| {
                Problem::internal("sweep", "a state made from all facts has folded some")
            })?;
            self.results.begin_row(moment.row)?;
            let outcomes = self.windowed.iter().map(|feature| &outcomes[*feature]);
            self.results.say_all(outcomes);
        }
        Ok(())
    }
}

impl<'a> Known<'a> {
    fn row(&self, fact: &PlacedFact) -> (&'a InputBatch, usize) {
        (&self.batches[fact.batch as usize], fact.row as usize)
    }

    /// The last sequence that changed anything.
    fn newest(&self) -> Option<Sequence> {
        let sequences = self.facts.iter().map(|fact| fact.position.sequence);
        let removed = self.removed.iter().map(|(_, _, since)| *since);
        sequences.chain(removed).max()
    }

    /// In the order of their positions, facts and the sequence that last changed anything up to each.
    fn changes(&self) -> Vec<(Position, Sequence)> {
        let came = self.facts.iter().map(|f| (f.position, f.position.sequence));
        let went = self
            .removed
            .iter()
            .map(|(_, position, since)| (*position, *since));
        let mut changes: Vec<_> = came.chain(went).collect();
        changes.sort_unstable();
        let mut newest = 0;
        for (_, since) in &mut changes {
            newest = newest.max(*since);
            *since = newest;
        }
        changes
    }

    /// Whether all facts count, once each, and come in the order of their positions.
    fn in_order(&self) -> bool {
        self.removed.is_empty() && self.facts.is_sorted_by(|a, b| a.position < b.position)
    }

    /// The facts that were known by `known_at` and counted then, in the order of their positions.
    fn counted_at(&self, known_at: Sequence) -> Vec<PlacedFact> {
        let removed_at = |position: &Position| {
            let at = self.removed.binary_search_by_key(position, |(_, p, _)| *p);
            at.ok().map(|at| self.removed[at].2)
        };
        let counts = |fact: &&PlacedFact| {
            let removed = removed_at(&fact.position);
            fact.position.sequence <= known_at && removed.is_none_or(|since| known_at < since)
        };
        let mut facts: Vec<PlacedFact> = self.facts.iter().filter(counts).copied().collect();
        facts.sort_by_key(|fact| fact.position);
        // A fact that two sources have is the first one's, as in live states.
        facts.dedup_by_key(|fact| fact.position);
        facts
    }

    /// The state as it grew: it can be read as of any sequence.
    fn state_with_past(&self, layout: &Layout) -> EntityState {
        let mut state = EntityState::new(layout);
        let mut facts = self.facts.clone();
        facts.sort_by_key(|fact| fact.position.sequence);
        for (facts, row) in facts.iter().map(|fact| self.row(fact)) {
            state.insert(layout, facts, row);
        }
        let mut removed: Vec<_> = self.removed.iter().collect();
        removed.sort_by_key(|(_, position, since)| (*since, *position));
        for (_, position, since) in removed {
            // Nothing is folded away, and what the state never had doesn't matter.
            let _ = state.retract(layout, *position, *since);
        }
        state
    }
}

/// The sequence that last changed anything before a position.
fn newest_before(changes: &[(Position, Sequence)], until: Position) -> Sequence {
    let before = changes.partition_point(|(position, _)| *position < until);
    before.checked_sub(1).map_or(0, |last| changes[last].1)
}
