//! How entries get from memory to the store: by a thread where many have gathered, at once at a
//! checkpoint. What the store couldn't take stays in memory and is tried again.

use fjall::PersistMode;

use super::*;

impl Index {
    /// Whether so much has gathered that it should be written to the store.
    pub fn is_full(&self) -> bool {
        lock(&self.gathered).facts >= GATHERED_FACTS_MAX
    }

    /// Refuses more facts where the store has failed for so long that they would fill the memory.
    pub fn ready(&self) -> Result<(), Problem> {
        if lock(&self.gathered).facts < OVERFLOW_FACTS_MAX {
            return Ok(());
        }
        Err(
            Problem::external("fact-index-failed", "the index of facts can't be written")
                .hint("mend the disk and start again; nothing that was acknowledged is lost")
                .retryable(),
        )
    }

    /// Starts writing what has gathered to the store, where it is much.
    pub fn settle(self: &Arc<Self>) -> Result<(), Problem> {
        let mut writer = lock(&self.writer);
        let idle = writer.as_ref().is_none_or(JoinHandle::is_finished);
        let facts = lock(&self.gathered).facts;
        if facts < GATHERED_FACTS_MAX || (!idle && facts < WAITING_FACTS_MAX) {
            return Ok(());
        }
        if let Err(problem) = join(writer.take()) {
            tracing::error!(%problem, "the index of facts can't be written; it is tried again");
        }
        self.hand_over();
        let index = self.clone();
        let thread = std::thread::Builder::new()
            .name("headwater-fact-index".into())
            .spawn(move || index.write_out());
        *writer = Some(
            thread
                .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?,
        );
        Ok(())
    }

    /// Writes everything that has gathered to the store.
    pub fn flush(&self) -> Result<(), Problem> {
        let mut writer = lock(&self.writer);
        if join(writer.take()).is_err() {
            // What it was writing is still there.
            self.write_out()?;
        }
        self.hand_over();
        self.write_out()
    }

    /// Returns once what was written to the store survives a power cut.
    pub fn sync(&self) -> Result<(), Problem> {
        let synced = self.database.persist(PersistMode::SyncAll);
        synced.map_err(|e| failed(&e))
    }

    /// The last sequence that anything in the store may be of.
    pub fn furthest(&self) -> Result<Sequence, Problem> {
        Ok(self.reached().max(self.stored_reach(WRITING)?))
    }

    /// Takes what has gathered for writing, unless what was taken before isn't written yet.
    fn hand_over(&self) {
        let mut gathered = lock(&self.gathered);
        if lock(&self.writing).is_some() {
            return;
        }
        let mut next = std::mem::take(&mut *lock(&self.spare));
        next.reached = gathered.reached;
        // Readers look at `gathered` first: for a moment they may see an entry twice, never not at all.
        let mut writing = lock(&self.writing);
        *writing = Some(Arc::new(std::mem::replace(&mut gathered, next)));
    }

    fn write_out(&self) -> Result<(), Problem> {
        let Some(gathered) = lock(&self.writing).clone() else {
            return Ok(());
        };
        self.meta
            .insert(WRITING, gathered.reached.to_be_bytes())
            .map_err(|e| failed(&e))?;
        let mut ids: Vec<_> = gathered.ids.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        for chunk in ids.chunks(WRITE_ENTRIES) {
            let mut batch = self.database.batch();
            for (id, known) in chunk {
                match known {
                    Some(known) => batch.insert(&self.ids, id.to_be_bytes(), encode_known(known)),
                    None => batch.remove(&self.ids, id.to_be_bytes()),
                }
            }
            batch.commit().map_err(|e| failed(&e))?;
        }
        let mut postings: Vec<_> = gathered.postings.iter().collect();
        postings.sort_unstable_by_key(|(key, _)| *key);
        for chunk in postings.chunks(WRITE_ENTRIES) {
            let mut batch = self.database.batch();
            for ((spec, key), positions) in chunk {
                let mut stored = postings_key(*spec, key);
                let first = positions.first().map_or(0, |p| p.sequence);
                stored.extend(first.to_be_bytes());
                batch.insert(&self.postings, stored, encode_positions(positions));
            }
            batch.commit().map_err(|e| failed(&e))?;
        }
        self.write_removals(&gathered)?;
        self.meta
            .insert(REACHED, gathered.reached.to_be_bytes())
            .map_err(|e| failed(&e))?;
        self.measure();
        *lock(&self.writing) = None;
        if let Ok(mut written) = Arc::try_unwrap(gathered) {
            written.clear();
            *lock(&self.spare) = written;
        }
        Ok(())
    }

    fn write_removals(&self, gathered: &Gathered) -> Result<(), Problem> {
        let mut batch = self.database.batch();
        for (sequence, at) in &gathered.removed {
            batch.insert(&self.removed, sequence.to_be_bytes(), at.to_be_bytes());
        }
        for ((spec, key), removals) in &gathered.removals {
            let mut stored = postings_key(*spec, key);
            let first = removals.first().map_or(0, |(sequence, _)| *sequence);
            stored.extend(first.to_be_bytes());
            batch.insert(&self.removals, stored, encode_removals(removals));
        }
        batch.commit().map_err(|e| failed(&e))
    }
}
