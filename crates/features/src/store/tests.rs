//! One suite that every feature store passes.

use super::*;

fn state(view: &str, key: &[u8], state: &[u8]) -> StoredState {
    StoredState {
        view: view.into(),
        key: key.to_vec(),
        state: state.to_vec(),
    }
}

fn conforms(store: &dyn FeatureStore) {
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
}

#[test]
fn the_memory_store_conforms() {
    conforms(&MemoryFeatureStore::default());
}

#[test]
fn the_embedded_store_conforms_and_reopens() {
    let folder = tempfile::tempdir().expect("a folder");
    conforms(&EmbeddedFeatureStore::open(folder.path(), 1 << 20).expect("opens"));
    let store = EmbeddedFeatureStore::open(folder.path(), 1 << 20).expect("opens again");
    assert_eq!(
        store.get("a@1", &[b"x"]).expect("readable"),
        [Some(b"two".to_vec())]
    );
    assert_eq!(
        store.positions().expect("readable"),
        BTreeMap::from([("a@1".to_owned(), 9)])
    );
}
