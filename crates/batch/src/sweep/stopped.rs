//! A sweep that is told to stop reads no more of the log, wherever it is: over a contract, or in the view that another stands on.
#![allow(clippy::unwrap_used, reason = "tests stop loudly")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use headwater_env::Env;
use headwater_facts::{
    AppendRequest, Appended, Change, FactLog, FoundFacts, Lookup, MemoryFactLog, QuarantineQuery,
    QuarantinedRow,
};
use headwater_features::{Catalog, ReadPlan};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{
    Cursor, EntityKey, FactBatch, Micros, Problem, Sequence, SequencedBatch, Value,
};

use super::{Moment, SpillLimit, Stop, Sweep, SweepOptions};

pub(super) const PROJECT: &str = "kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: customer, logicalType: string}
      - {name: shop, logicalType: string}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
---
{apiVersion: headwater/v1, kind: Entity, name: customer, spec: {keys: [{name: customer, type: string}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: shop, spec: {keys: [{name: shop, type: string}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: buying
spec:
  entity: customer
  sources: [{contract: purchase}]
  features: [{name: n, aggregate: count, windows: [1h]}]
---
apiVersion: headwater/v1
kind: FeatureView
name: regulars
spec:
  entity: shop
  sources: [{view: buying}]
  features: [{name: most, aggregate: max, of: n_1h, windows: [1h]}]
";
/// Facts of a batch: the log is read in pieces of two.
pub(super) const FACTS: usize = 4096;
const BATCHES: usize = 10;

/// A log that says stop when it is read for the `at`th time.
struct Stopping {
    log: MemoryFactLog,
    reads: AtomicUsize,
    at: usize,
    stop: Stop,
}

impl FactLog for Stopping {
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        self.log.append(group)
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        if self.reads.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.stop.stop();
        }
        self.log.read(from, facts_max)
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        self.log.sequences()
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        self.log.newest(contract)
    }

    fn newest_dropped(&self, contract: &str) -> Option<Micros> {
        self.log.newest_dropped(contract)
    }

    fn lookup(&self, _: &Lookup) -> Result<FoundFacts, Problem> {
        Err(Problem::internal("unindexed", "there is no index"))
    }

    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        self.log.quarantined(query)
    }
}

pub(super) fn batch(number: usize) -> FactBatch {
    let facts = || number * FACTS..(number + 1) * FACTS;
    let text = |letter: char, of: usize| -> ArrayRef {
        let texts = facts().map(|i| Some(format!("{letter}{}", i % of)));
        Arc::new(texts.collect::<StringArray>())
    };
    let event_times: Vec<i64> = facts().map(|i| i as i64 * 1000).collect();
    let times = TimestampMicrosecondArray::from(event_times.clone()).with_timezone("UTC");
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("customer", text('c', 50), true),
        ("shop", text('s', 7), true),
        ("time", Arc::new(times), true),
    ];
    FactBatch {
        contract: "purchase".into(),
        columns: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
        event_times,
        fact_ids: None,
        unknown_fields: None,
    }
}

/// Sweeps a view and says stop at a read: how it ended, and how often the log was read.
fn swept(view: &str, at: usize) -> (Result<(), &'static str>, usize) {
    let env = Env::simulated(3).0;
    let log = MemoryFactLog::new(env.clone());
    for number in 0..BATCHES {
        let change = Change::Append(batch(number));
        log.append(vec![AppendRequest::new(change)]).unwrap();
    }
    let facts = Stopping {
        log,
        reads: AtomicUsize::new(0),
        at,
        stop: Stop::default(),
    };
    let documents = YamlDocument::parse_all("project.yaml", PROJECT).unwrap();
    let catalog = Catalog::compile(&documents).unwrap();
    let view = catalog.view(view).unwrap();
    let plan = ReadPlan::new(view.clone(), vec![0]);
    let sweep = Sweep {
        env: &env,
        facts: &facts,
        catalog: &catalog,
        options: SweepOptions {
            memory_bytes_max: 1 << 30,
            spill_folder: Path::new("/spill").to_owned(),
            spill_limit: SpillLimit::default(),
        },
    };
    let key = |name: &str| EntityKey::from_values(&[Value::string(name)]);
    let moments = (0..7).map(|i| {
        Ok(Moment {
            key: key(&format!("s{i}")),
            cursor: Cursor::inclusive(i64::from(i) * 1_000_000),
        })
    });
    let made = sweep.features_until(&plan, moments, &facts.stop);
    let made = made.map(drop).map_err(|problem| problem.code);
    (made, facts.reads.load(Ordering::Relaxed))
}

#[test]
fn a_sweep_hears_stop_at_every_read_of_the_log() {
    for (view, passes) in [("buying", 1), ("regulars", 3)] {
        let (made, reads) = swept(view, usize::MAX);
        assert_eq!(made, Ok(()), "{view}");
        assert!(reads >= passes * BATCHES / 2, "{view}: {reads} reads");
        for at in 1..=reads {
            assert_eq!(swept(view, at), (Err("stopped"), at), "{view}");
        }
    }
}
