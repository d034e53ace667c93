//! Checkpoints and evictions over a store that fails now and then lose nothing.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use headwater_env::Env;
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
const CUSTOMERS: i64 = 40;

/// A store that refuses writes while it is told to.
#[derive(Default)]
struct FailingStore {
    inner: MemoryFeatureStore,
    full: AtomicBool,
}

impl FeatureStore for FailingStore {
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem> {
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
        self.inner.size_bytes()
    }
}

struct Shop {
    _folder: tempfile::TempDir,
    log: Arc<EmbeddedFactLog>,
    store: Arc<FailingStore>,
    catalog: Arc<Catalog>,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = FactLogOptions::default();
        let (log, _) =
            EmbeddedFactLog::open(&Env::real(), folder.path(), options, Vec::new()).expect("a log");
        let documents = YamlDocument::parse_all("shop.yaml", DEFINITIONS).expect("documents");
        Self {
            _folder: folder,
            log: Arc::new(log),
            store: Arc::default(),
            catalog: Arc::new(Catalog::compile(&documents).expect("compiles")),
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
