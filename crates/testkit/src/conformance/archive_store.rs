//! What every store of an archive must do: objects as a whole, durable once they are put, put once where that is asked,
//! read in part, and the same ones for readers of Parquet.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_env::{Random, SeededRandom};
use headwater_facts::ArchiveStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;

/// Opens one store, again and again.
pub type Open = Box<dyn Fn() -> Arc<dyn ArchiveStore>>;

/// Names as an archive has them, one the beginning of another.
const PATHS: [&str; 4] = [
    "_headwater/archive.json",
    "_headwater/segments/00000000000000000001.rest",
    "contract=a%20b/day=1970-01-01/00000000000000000001-0.parquet",
    "contract=a%20b/day=1970-01-01/00000000000000000001-0.parquet.old",
];
const ACTS: u64 = 300;
/// Stores that put the same object at once, and how often.
const WRITERS: usize = 4;
const ROUNDS: usize = 20;

/// Runs every case on stores that `start` begins, each empty.
pub fn conforms(start: impl Fn() -> Open) {
    for case in [
        what_is_put_is_there,
        an_object_is_put_once,
        one_of_several_puts_an_object,
        parts_are_read,
        what_is_removed_is_gone,
        any_acts_leave_what_they_should,
    ] {
        case(&start());
    }
}

fn read(store: &Arc<dyn ArchiveStore>, path: &str) -> Option<Vec<u8>> {
    let found = store.get(path).expect("readable");
    found.map(|bytes| bytes.to_vec())
}

fn put(store: &Arc<dyn ArchiveStore>, path: &str, bytes: &[u8]) {
    store.put(path, bytes.to_vec()).expect("writable");
}

fn what_is_put_is_there(open: &Open) {
    let store = open();
    let large = vec![7; 300_000];
    for path in PATHS {
        assert_eq!(read(&store, path), None);
    }
    for path in PATHS {
        put(&store, path, path.as_bytes());
    }
    put(&store, PATHS[0], &large);
    put(&store, PATHS[3], b"");
    drop(store);
    let store = open();
    assert_eq!(read(&store, PATHS[0]), Some(large));
    assert_eq!(read(&store, PATHS[1]), Some(PATHS[1].into()));
    assert_eq!(read(&store, PATHS[2]), Some(PATHS[2].into()));
    assert_eq!(read(&store, PATHS[3]), Some(Vec::new()));
    put(&store, PATHS[0], b"shorter");
    assert_eq!(read(&open(), PATHS[0]), Some(b"shorter".to_vec()));
    assert!(store.url().contains("://"), "it says where it is");
}

fn an_object_is_put_once(open: &Open) {
    let new = |path: &str, bytes: &[u8]| open().put_new(path, bytes.to_vec()).expect("answered");
    assert!(new(PATHS[0], b"first"));
    assert!(!new(PATHS[0], b"other"));
    assert_eq!(read(&open(), PATHS[0]), Some(b"first".to_vec()));
    assert!(new(PATHS[1], b""));
    assert!(!new(PATHS[1], b"other"), "an empty one is one");
}

/// Whoever is told that it wrote an object finds its own, and nobody else is told so.
fn one_of_several_puts_an_object(open: &Open) {
    for round in 0..ROUNDS {
        let path = format!("round-{round}/identity.json");
        let stores: Vec<Arc<dyn ArchiveStore>> = (0..WRITERS).map(|_| open()).collect();
        let put = |writer: usize| {
            let new = stores[writer].put_new(&path, vec![writer as u8; 100]);
            new.expect("answered")
        };
        let put = &put;
        let new: Vec<bool> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|w| scope.spawn(move || put(w))).collect();
            let told = writers.into_iter().map(|w| w.join().expect("a writer"));
            told.collect()
        });
        let wrote: Vec<usize> = (0..WRITERS).filter(|w| new[*w]).collect();
        assert_eq!(wrote.len(), 1, "{wrote:?} say that they wrote it");
        let held = vec![wrote[0] as u8; 100];
        assert_eq!(read(&open(), &path), Some(held));
    }
}

fn parts_are_read(open: &Open) {
    let store = open();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    put(&store, PATHS[2], &bytes);
    for (from, until) in [(0, 1), (3, 4097), (99_990, 100_000), (0, 100_000)] {
        let part = store.get_range(PATHS[2], from as u64..until as u64);
        assert_eq!(part.expect("readable"), bytes[from..until]);
    }
    let missing = store.get_range(PATHS[3], 0..1);
    let missing = missing.expect_err("there is no such object");
    assert!(!missing.hint.is_empty(), "{missing:?}");
    assert!(missing.detail.contains(PATHS[3]), "{missing:?}");
}

fn what_is_removed_is_gone(open: &Open) {
    let store = open();
    put(&store, PATHS[2], b"one");
    put(&store, PATHS[3], b"two");
    store.delete(PATHS[2]).expect("removed");
    store.delete(PATHS[2]).expect("nothing to remove");
    store.delete(PATHS[1]).expect("nothing was there");
    assert_eq!(read(&store, PATHS[2]), None);
    assert_eq!(read(&store, PATHS[3]), Some(b"two".to_vec()));
    let again = store.put_new(PATHS[2], b"again".to_vec());
    assert!(again.expect("writable"));
}

/// Objects in a map are what a store should hold.
fn any_acts_leave_what_they_should(open: &Open) {
    let (store, random) = (open(), SeededRandom::new(1));
    let mut held: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for act in 0..ACTS {
        let path = PATHS[(random.next_u64() % PATHS.len() as u64) as usize];
        let bytes = vec![act as u8; (random.next_u64() % 50) as usize];
        match random.next_u64() % 4 {
            0 => {
                put(&store, path, &bytes);
                held.insert(path, bytes);
            }
            1 => {
                let new = store.put_new(path, bytes.clone()).expect("answered");
                assert_eq!(new, !held.contains_key(path));
                held.entry(path).or_insert(bytes);
            }
            2 => {
                store.delete(path).expect("answered");
                held.remove(path);
            }
            _ => assert_eq!(read(&store, path).as_ref(), held.get(path)),
        }
    }
    for path in PATHS {
        assert_eq!(read(&store, path).as_ref(), held.get(path), "{path}");
    }
}

/// Readers of Parquet find the same objects under the same names.
pub fn shows_its_objects(open: &Open) {
    let store = open();
    for path in PATHS {
        put(&store, path, path.as_bytes());
    }
    let objects = store.objects().expect("objects");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    for path in PATHS {
        let place = Path::parse(path).expect("a path");
        let found = runtime.block_on(async { objects.get(&place).await?.bytes().await });
        assert_eq!(found.expect("the same object"), path.as_bytes());
    }
    let gone = Path::parse(PATHS[0]).expect("a path");
    store.delete(PATHS[0]).expect("removed");
    let found = runtime.block_on(objects.get(&gone));
    assert!(matches!(found, Err(object_store::Error::NotFound { .. })));
}
