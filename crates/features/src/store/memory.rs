//! A feature store in memory: for tests, and for state that needn't outlive the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use headwater_schema::{Problem, Sequence};

use super::{FeatureStore, StoreWrite};

/// Holds everything in one map.
#[derive(Debug, Default)]
pub struct MemoryFeatureStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    states: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    positions: BTreeMap<String, Sequence>,
}

impl MemoryFeatureStore {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeatureStore for MemoryFeatureStore {
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem> {
        let inner = self.inner();
        let state = |key: &&[u8]| inner.states.get(&(view.to_owned(), key.to_vec())).cloned();
        Ok(keys.iter().map(state).collect())
    }

    fn write(&self, write: &StoreWrite) -> Result<(), Problem> {
        let mut inner = self.inner();
        for state in &write.states {
            let key = (state.view.clone(), state.key.clone());
            inner.states.insert(key, state.state.clone());
        }
        inner.positions.extend(write.positions.clone());
        Ok(())
    }

    fn positions(&self) -> Result<BTreeMap<String, Sequence>, Problem> {
        Ok(self.inner().positions.clone())
    }

    fn retain(&self, views: &[String]) -> Result<(), Problem> {
        let mut inner = self.inner();
        inner.states.retain(|(view, _), _| views.contains(view));
        inner.positions.retain(|view, _| views.contains(view));
        Ok(())
    }

    fn sync(&self) -> Result<(), Problem> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let size = |((view, key), state): (&(String, Vec<u8>), &Vec<u8>)| {
            (view.len() + key.len() + state.len()) as u64
        };
        self.inner().states.iter().map(size).sum()
    }
}
