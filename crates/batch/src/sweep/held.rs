//! Moments and facts in memory, entity by entity.

use hashbrown::HashMap;
use headwater_aggregate::{EntityState, InputBatch, Layout};
use headwater_features::{ForwardPlan, PlacedFact, ReadPlan, Said};
use headwater_schema::{Cursor, Position, Problem, Sequence};

use super::results::Results;

/// About how many bytes an entity takes beside its key: its places in the map and in the list, and what it points to.
const ENTITY_BYTES: usize = 96;
/// The entity of moments that are of none.
const NOBODY: u32 = u32::MAX;

/// What is known of the entities that moments ask for.
#[derive(Default)]
pub(super) struct Held {
    numbers: HashMap<Box<[u8]>, u32>,
    moments: Vec<Asked>,
    batches: Vec<InputBatch>,
    facts: Vec<Fact>,
    removed: Vec<Removed>,
    bytes: usize,
}

struct Asked {
    row: u64,
    entity: u32,
    cursor: Cursor,
}

/// Where a fact lies. Its position is here, too, so that its batch isn't touched before a value is needed.
struct Fact {
    position: Position,
    entity: u32,
    batch: u32,
    row: u32,
}

/// A fact that counts no longer, and since when.
type Removed = (u32, Position, Sequence);

impl Held {
    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entities there are.
    pub(super) fn entities(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn moment(&mut self, row: u64, key: Option<&[u8]>, cursor: &Cursor) {
        let entity = match key {
            None => NOBODY,
            Some(key) => match self.numbers.get(key) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.len() as u32;
                    self.bytes += key.len() + ENTITY_BYTES;
                    self.numbers.insert(key.into(), number);
                    number
                }
            },
        };
        self.bytes += size_of::<Asked>();
        self.moments.push(Asked {
            row,
            entity,
            cursor: *cursor,
        });
    }

    /// Takes those facts whose entities are asked for.
    pub(super) fn facts<'k>(
        &mut self,
        key: impl Fn(usize) -> &'k [u8],
        facts: InputBatch,
    ) -> Result<(), Problem> {
        let (batch, before) = (self.batches.len() as u32, self.facts.len());
        let rows = facts.sequences.len();
        let mut asked = Vec::new();
        for row in 0..rows {
            if let Some(entity) = self.numbers.get(key(row)) {
                self.facts.push(Fact {
                    position: facts.position(row),
                    entity: *entity,
                    batch,
                    row: asked.len() as u32,
                });
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
        self.bytes += kept.size_bytes() + (self.facts.len() - before) * size_of::<Fact>();
        self.batches.push(kept);
        Ok(())
    }

    pub(super) fn removed(&mut self, key: &[u8], position: Position, since: Sequence) {
        if let Some(entity) = self.numbers.get(key) {
            self.removed.push((*entity, position, since));
            self.bytes += size_of::<Removed>();
        }
    }

    /// The keys of the entities, each at its number.
    pub(super) fn keys(&self) -> Vec<&[u8]> {
        let mut keys = vec![<&[u8]>::default(); self.numbers.len()];
        for (key, number) in &self.numbers {
            keys[*number as usize] = key;
        }
        keys
    }

    pub(super) fn each_moment(&self) -> impl Iterator<Item = (u64, Option<&[u8]>, &Cursor)> {
        let keys = self.keys();
        self.moments.iter().map(move |moment| {
            let key = keys.get(moment.entity as usize).copied();
            (moment.row, key, &moment.cursor)
        })
    }

    pub(super) fn each_fact(&self) -> impl Iterator<Item = (&[u8], &InputBatch, usize)> {
        let keys = self.keys();
        self.facts.iter().map(move |fact| {
            let batch = &self.batches[fact.batch as usize];
            (keys[fact.entity as usize], batch, fact.row as usize)
        })
    }

    pub(super) fn each_removed(&self) -> impl Iterator<Item = (&[u8], Position, Sequence)> {
        let keys = self.keys();
        let removed = self.removed.iter();
        removed.map(move |(entity, position, since)| (keys[*entity as usize], *position, *since))
    }

    /// Reads the plan's features at every moment.
    pub(super) fn read(mut self, plan: &ReadPlan, results: &mut Results) -> Result<(), Problem> {
        let entities = self.numbers.len();
        let place = |entity: u32| (entity as usize).min(entities);
        // They keep the order among themselves: facts of one source that of their sequences.
        let asked = Grouped::new(&self.moments, entities + 1, |m| place(m.entity));
        let facts = Grouped::new(&self.facts, entities + 1, |f| place(f.entity));
        self.removed.sort_unstable();
        let mut removed = self.removed.as_slice();
        let mut reading = Reading::new(plan, results);
        let mut known = Known {
            facts: Vec::new(),
            removed,
        };
        let mut moments: Vec<&Asked> = Vec::new();
        for number in 0..=entities {
            let gone = removed.partition_point(|(entity, ..)| place(*entity) <= number);
            (known.removed, removed) = removed.split_at(gone);
            known.facts.clear();
            known.facts.extend(facts.of(number).map(|at| {
                let fact = &self.facts[at];
                let batch = &self.batches[fact.batch as usize];
                (fact.position, batch, fact.row as usize)
            }));
            moments.clear();
            moments.extend(asked.of(number).map(|at| &self.moments[at]));
            moments.sort_by_key(|m| (m.cursor.as_of, m.cursor.until));
            reading.read(&known, &moments)?;
        }
        Ok(())
    }
}

/// The places of items, group by group, in their order.
struct Grouped {
    /// Where each group ends in `order`.
    ends: Vec<usize>,
    order: Vec<u32>,
}

impl Grouped {
    fn new<T>(items: &[T], groups: usize, group: impl Fn(&T) -> usize) -> Self {
        let mut ends = vec![0; groups];
        items.iter().for_each(|item| ends[group(item)] += 1);
        let mut start = 0;
        for end in &mut ends {
            // The start for now; it moves to the end as items come.
            (*end, start) = (start, start + *end);
        }
        let mut order = vec![0; items.len()];
        for (place, item) in items.iter().enumerate() {
            let end = &mut ends[group(item)];
            order[*end] = place as u32;
            *end += 1;
        }
        Self { ends, order }
    }

    fn of(&self, group: usize) -> impl Iterator<Item = usize> {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        let order = &self.order[start..self.ends[group]];
        order.iter().map(|place| *place as usize)
    }
}

/// What is known of one entity.
struct Known<'a> {
    /// Source by source, each in the order of the sequences.
    facts: Vec<PlacedFact<'a>>,
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
    fn new(plan: &'a ReadPlan, results: &'r mut Results) -> Self {
        let windowed = plan.windowed();
        let mut columns = vec![0; plan.view().features.len()];
        for (column, feature) in windowed.iter().enumerate() {
            columns[*feature] = column;
        }
        Self {
            plan,
            columns,
            windowed,
            forward: plan.forward(),
            results,
        }
    }

    /// Reads at moments in the order of their time.
    fn read(&mut self, known: &Known<'a>, moments: &[&Asked]) -> Result<(), Problem> {
        let newest = known.newest();
        let knows_all = |m: &&Asked| newest.is_none_or(|newest| newest <= m.cursor.known_at);
        if !moments.iter().all(knows_all) {
            return self.read_past(known, moments);
        }
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
            self.forward.read(&moment.cursor, |feature, said, counted| {
                results.say(columns[feature], said, counted);
            });
        }
        Ok(())
    }

    /// The same where some moments don't know all facts.
    fn read_past(&mut self, known: &Known<'a>, moments: &[&Asked]) -> Result<(), Problem> {
        let layout = &self.plan.view().layout;
        let state = known.state_with_past(layout);
        for moment in moments {
            let cursor = &moment.cursor;
            let read = self.plan.read(Some(&state), cursor, None).whole();
            let read = read.or_else(|| {
                // More was removed than a state keeps beside its facts.
                let facts = known.counted_at(cursor.known_at);
                let facts = facts.iter().map(|(_, batch, row)| (*batch, *row));
                let state = EntityState::of_sorted(layout, facts);
                self.plan.read(Some(&state), cursor, None).whole()
            });
            let outcomes = read.ok_or_else(|| {
                Problem::internal("sweep", "a state made from all facts has folded some")
            })?;
            self.results.begin_row(moment.row)?;
            for (column, feature) in self.windowed.iter().enumerate() {
                let outcome = &outcomes[*feature];
                let counted = outcome.event_time.is_some();
                self.results
                    .say(column, Said::Value(&outcome.value), counted);
            }
        }
        Ok(())
    }
}

impl<'a> Known<'a> {
    /// The last sequence that changed anything.
    fn newest(&self) -> Option<Sequence> {
        let sequences = self.facts.iter().map(|(position, ..)| position.sequence);
        let removed = self.removed.iter().map(|(_, _, since)| *since);
        sequences.chain(removed).max()
    }

    /// Whether all facts count, once each, and come in the order of their positions.
    fn in_order(&self) -> bool {
        self.removed.is_empty() && self.facts.is_sorted_by(|a, b| a.0 < b.0)
    }

    /// The facts that were known by `known_at` and counted then, in the order of their positions.
    fn counted_at(&self, known_at: Sequence) -> Vec<PlacedFact<'a>> {
        let removed_at = |position: &Position| {
            let at = self.removed.binary_search_by_key(position, |(_, p, _)| *p);
            at.ok().map(|at| self.removed[at].2)
        };
        let counts = |(position, ..): &&PlacedFact<'a>| {
            let removed = removed_at(position);
            position.sequence <= known_at && removed.is_none_or(|since| known_at < since)
        };
        let mut facts: Vec<PlacedFact<'a>> = self.facts.iter().filter(counts).copied().collect();
        facts.sort_by_key(|(position, ..)| *position);
        // A fact that two sources have is the first one's, as in live states.
        facts.dedup_by_key(|(position, ..)| *position);
        facts
    }

    /// The state as it grew: it can be read as of any sequence.
    fn state_with_past(&self, layout: &Layout) -> EntityState {
        let mut state = EntityState::new(layout);
        let mut facts = self.facts.clone();
        facts.sort_by_key(|(position, ..)| position.sequence);
        for (_, facts, row) in facts {
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
