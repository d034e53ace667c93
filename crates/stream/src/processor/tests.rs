//! Checkpoints and evictions over a store that fails now and then lose nothing, and a store that stands
//! still keeps nobody from the figures.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use headwater_env::Env;
use headwater_env::queue::{Receiver, Sender, bounded};
use headwater_facts::{AppendRequest, Change, EmbeddedFactLog, FactLogOptions};
use headwater_features::MemoryFeatureStore;
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{FactBatch, Value};

use super::*;

const DEFINITIONS: &str = "
kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: customer, logicalType: integer, required: true}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: Entity
name: customer
spec: {keys: [{name: customer, type: integer}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
spec:
  entity: customer
  sources: [{contract: purchase}]
  features: [{name: purchases, aggregate: count}]
";
/// A view, and one upstream of it whose name comes later.
const CHAINED: &str = "
---
apiVersion: headwater/v1
kind: FeatureView
name: busiest
spec:
  entity: customer
  sources: [{view: visiting}]
  features: [{name: most, aggregate: max, of: visits_1h, windows: [1h]}]
---
apiVersion: headwater/v1
kind: FeatureView
name: visiting
spec:
  entity: customer
  sources: [{contract: purchase}]
  features: [{name: visits, aggregate: count, windows: [1h]}]
";
const CUSTOMERS: i64 = 40;
/// What comes at all comes long before.
const WAIT: Duration = Duration::from_secs(20);

/// A store that refuses writes while it is told to, and may stand still.
#[derive(Default)]
struct FailingStore {
    inner: MemoryFeatureStore,
    full: AtomicBool,
    /// Tells that the next read has come, and what that waits for. Held meanwhile: an LSM whose disk
    /// stands still can't say how large it is either.
    stall: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl FeatureStore for FailingStore {
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem> {
        let mut stall = lock(&self.stall);
        if let Some((reached, until)) = stall.take() {
            reached.send(()).expect("the test waits");
            // It ends when the test lets go of the other side.
            let _ = until.recv();
        }
        drop(stall);
        self.inner.get(view, keys)
    }

    fn write(&self, write: &StoreWrite) -> Result<(), Problem> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Problem::external("disk-full", "no room"));
        }
        self.inner.write(write)
    }

    fn positions(&self) -> Result<BTreeMap<String, Sequence>, Problem> {
        self.inner.positions()
    }

    fn retain(&self, views: &[String]) -> Result<(), Problem> {
        self.inner.retain(views)
    }

    fn sync(&self) -> Result<(), Problem> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let _stall = lock(&self.stall);
        self.inner.size_bytes()
    }
}

struct Shop {
    _folder: tempfile::TempDir,
    log: Arc<EmbeddedFactLog>,
    store: Arc<FailingStore>,
    catalog: Arc<Catalog>,
}

fn catalog(definitions: &str) -> Arc<Catalog> {
    let documents = YamlDocument::parse_all("shop.yaml", definitions).expect("documents");
    Arc::new(Catalog::compile(&documents).expect("compiles"))
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = FactLogOptions::default();
        let (log, _) =
            EmbeddedFactLog::open(&Env::real(), folder.path(), options, Vec::new()).expect("a log");
        Self {
            _folder: folder,
            log: Arc::new(log),
            store: Arc::default(),
            catalog: catalog(DEFINITIONS),
        }
    }

    fn open(&self, memory_bytes_max: usize) -> Processor {
        let options = ProcessorOptions {
            shards: 1,
            memory_bytes_max,
            ..ProcessorOptions::default()
        };
        let (log, store) = (self.log.clone(), self.store.clone());
        let processor = Processor::open(self.catalog.clone(), log, store, options);
        let processor = processor.expect("opens");
        processor.recover(|_, _| {}).expect("recovers");
        processor
    }

    /// One more fact of every customer, appended.
    fn append(&self) -> Arc<SequencedBatch> {
        let rows: Vec<String> = (0..CUSTOMERS)
            .map(|c| format!("{{\"customer\":{c},\"time\":{c}}}"))
            .collect();
        let body = format!("[{}]", rows.join(","));
        let contract = self.catalog.contract("purchase").expect("the contract");
        let limits = DecodeLimits::default();
        let decoded =
            decode(contract, BodyFormat::Json, body.as_bytes(), &limits).expect("decodes");
        let batch: FactBatch = decoded.batch;
        let request = AppendRequest::new(Change::Append(batch));
        let appended = self.log.append(vec![request]).expect("appended");
        appended[0].batch.clone().expect("new facts")
    }
}

/// How many purchases each customer has; the same for all.
fn purchases(processor: &Processor) -> i64 {
    let in_force = processor.in_force();
    let served = in_force.view("spending").expect("the view");
    let plan = ReadPlan::new(served.view().clone(), vec![0]);
    let counts = (0..CUSTOMERS).map(|customer| {
        let key = EntityKey::from_values(&[Value::Int(customer)]).expect("a key");
        let cursor = Cursor::inclusive(Micros::MAX);
        let outcomes = processor.read(served, &plan, &key, &cursor);
        match outcomes.expect("read")[0].value {
            Value::Int(count) => count,
            ref other => panic!("{other:?}"),
        }
    });
    let counts: Vec<i64> = counts.collect();
    assert!(counts.iter().all(|c| *c == counts[0]), "{counts:?}");
    counts[0]
}

#[test]
fn a_checkpoint_that_failed_is_made_good_by_the_next() {
    let shop = Shop::new();
    let processor = shop.open(1 << 30);
    processor.apply(&shop.append()).expect("applied");
    shop.store.full.store(true, Ordering::SeqCst);
    assert_eq!(
        processor.checkpoint().expect_err("no room").code,
        "disk-full"
    );
    shop.store.full.store(false, Ordering::SeqCst);
    processor.checkpoint().expect("written");
    drop(processor);
    let processor = shop.open(1 << 30);
    assert_eq!(processor.stats().checkpointed, CUSTOMERS as u64);
    assert_eq!(purchases(&processor), 1);
}

#[test]
fn states_stay_in_memory_until_the_store_has_them() {
    let shop = Shop::new();
    let processor = shop.open(0);
    processor.apply(&shop.append()).expect("applied");
    shop.store.full.store(true, Ordering::SeqCst);
    let second = shop.append();
    processor.apply(&second).expect("applied all the same");
    assert_eq!(purchases(&processor), 2, "reads go on");
    let over = processor.stats().views[0].bytes_in_memory;
    assert!(over > 0, "what can't be stored stays");
    shop.store.full.store(false, Ordering::SeqCst);
    processor.apply(&second).expect("applied again");
    assert_eq!(purchases(&processor), 2, "and nothing is counted twice");
    let stats = &processor.stats().views[0];
    assert_eq!(stats.bytes_in_memory, 0, "the budget holds");
}

/// Facts, entities in memory, evictions and loads of a view.
fn figures(stats: &ProcessorStats, view: &str) -> [u64; 4] {
    let stats = stats.views.iter().find(|v| v.view.as_ref() == view);
    let stats = stats.expect("the view");
    [
        stats.facts,
        stats.entities_in_memory,
        stats.evictions,
        stats.loads,
    ]
}

#[test]
fn figures_come_while_a_read_waits_for_a_store_that_stands_still() {
    const ALL: u64 = CUSTOMERS as u64;
    let shop = Shop::new();
    // Without room in memory every read asks the store.
    let processor = Arc::new(shop.open(0));
    processor.apply(&shop.append()).expect("applied");
    let (reached, standing) = bounded("test.reached", 1);
    let (go, until) = bounded("test.go", 1);
    *lock(&shop.store.stall) = Some((reached, until));
    let reader = processor.clone();
    let reading = std::thread::spawn(move || purchases(&reader));
    standing.recv_timeout(WAIT).expect("the read has come");
    let (tell, told) = bounded("test.told", 1);
    let asked = processor.clone();
    std::thread::spawn(move || drop(tell.try_send(asked.stats())));
    let stats = told.recv_timeout(WAIT);
    // Whatever came of it, the read ends.
    drop(go);
    assert_eq!(reading.join().expect("reads"), 1);
    let stats = stats.expect("figures without the store");
    assert_eq!(figures(&stats, "spending"), [ALL, 0, ALL, 0]);
    let stats = processor.stats();
    assert_eq!(figures(&stats, "spending"), [ALL, 0, 2 * ALL, ALL]);
}

#[test]
fn figures_follow_views_that_come_and_go_whatever_their_names() {
    const ALL: u64 = CUSTOMERS as u64;
    let shop = Shop::new();
    let processor = shop.open(1 << 30);
    let more = catalog(&format!("{DEFINITIONS}{CHAINED}"));
    processor
        .replace(more.clone(), || Ok(()))
        .expect("replaced");
    processor.apply(&shop.append()).expect("applied");
    let stats = processor.stats();
    for view in ["spending", "visiting"] {
        assert_eq!(figures(&stats, view), [ALL, ALL, 0, 0], "{view}");
    }
    assert_eq!(figures(&stats, "busiest"), [0; 4], "it keeps no state");
    assert_eq!(stats.shards[0].entities_in_memory, 2 * ALL);
    let fewer = shop.catalog.clone();
    processor.replace(fewer, || Ok(())).expect("replaced");
    assert_eq!(processor.stats().shards[0].entities_in_memory, ALL);
    // A view that comes again begins anew, and has nothing of what its place held before.
    processor.replace(more, || Ok(())).expect("replaced");
    let stats = processor.stats();
    assert_eq!(figures(&stats, "spending"), [ALL, ALL, 0, 0]);
    assert_eq!(figures(&stats, "visiting"), [0; 4]);
}
