//! What every feature store must do: whole writes that survive in their order, and nothing kept of views
//! that are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_features::{FeatureStore, StoreWrite, StoredState};

/// Opens one store, again and again.
pub type Open = Box<dyn Fn() -> Arc<dyn FeatureStore>>;

fn state(view: &str, key: &[u8], state: &[u8]) -> StoredState {
    StoredState {
        view: view.into(),
        key: key.to_vec(),
        state: state.to_vec(),
    }
}

/// Runs every case on an empty store.
pub fn conforms(open: &Open) {
    let store = open();
    assert_eq!(store.positions().expect("readable"), BTreeMap::new());
    assert_eq!(store.get("a@1", &[b"x"]).expect("readable"), [None]);
    let write = StoreWrite {
        states: vec![
            state("a@1", b"x", b"one"),
            state("a@1", b"y", &[7; 100_000]),
            state("b@1", b"x", b""),
        ],
        positions: BTreeMap::from([("a@1".to_owned(), 5), ("b@1".to_owned(), 6)]),
    };
    store.write(&write).expect("writable");
    store.write(&write).expect("writing twice changes nothing");
    let found = store
        .get("a@1", &[b"y", b"missing", b"x"])
        .expect("readable");
    assert_eq!(found, [Some(vec![7; 100_000]), None, Some(b"one".to_vec())]);
    assert_eq!(
        store.get("b@1", &[b"x"]).expect("readable"),
        [Some(Vec::new())]
    );
    let newer = StoreWrite {
        states: vec![state("a@1", b"x", b"two")],
        positions: BTreeMap::from([("a@1".to_owned(), 9)]),
    };
    store.write(&newer).expect("writable");
    assert_eq!(
        store.get("a@1", &[b"x"]).expect("readable"),
        [Some(b"two".to_vec())]
    );
    store.retain(&["a@1".to_owned()]).expect("writable");
    assert_eq!(
        store.positions().expect("readable"),
        BTreeMap::from([("a@1".to_owned(), 9)])
    );
    assert_eq!(store.get("b@1", &[b"x"]).expect("readable"), [None]);
    assert_eq!(
        store.get("a@1", &[b"x"]).expect("readable"),
        [Some(b"two".to_vec())]
    );
    drop(store);
    let store = open();
    assert_eq!(
        store.get("a@1", &[b"x", b"y"]).expect("readable"),
        [Some(b"two".to_vec()), Some(vec![7; 100_000])]
    );
    assert_eq!(
        store.positions().expect("readable"),
        BTreeMap::from([("a@1".to_owned(), 9)])
    );
    assert!(store.size_bytes() > 0);
}
