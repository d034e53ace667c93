//! A sweep tells how far it is: first facts, then rows, each up to all of them and never beyond.
#![allow(clippy::unwrap_used, reason = "tests stop loudly")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use headwater_env::Env;
use headwater_facts::{AppendRequest, Change, FactLog, MemoryFactLog};
use headwater_features::{Catalog, ReadPlan};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Cursor, EntityKey, Value};

use super::stopped::{FACTS, PROJECT, batch};
use super::{Moment, SpillLimit, Stop, Sweep, SweepOptions};
use crate::unindexed::Unindexed;
use crate::{Progress, ProgressHook, Step};

const BATCHES: usize = 3;
const ROWS: usize = 100;

/// What the second of three sweeps tells: of a view, at moments of which some are nobody's.
fn told(view: &str, memory_bytes_max: usize) -> Vec<Progress> {
    let env = Env::simulated(3).0;
    let log = MemoryFactLog::new(env.clone());
    for number in 0..BATCHES {
        let change = Change::Append(batch(number));
        log.append(vec![AppendRequest::new(change)]).unwrap();
    }
    let documents = YamlDocument::parse_all("project.yaml", PROJECT).unwrap();
    let catalog = Catalog::compile(&documents).unwrap();
    let plan = ReadPlan::new(catalog.view(view).unwrap().clone(), vec![0]);
    let unindexed = Unindexed(&log);
    let sweep = Sweep {
        env: &env,
        facts: &unindexed,
        catalog: &catalog,
        options: SweepOptions {
            memory_bytes_max,
            spill_folder: Path::new("/spill").to_owned(),
            spill_limit: SpillLimit::default(),
        },
    };
    let letter = if view == "buying" { 'c' } else { 's' };
    let key = |row: usize| EntityKey::from_values(&[Value::string(format!("{letter}{}", row % 9))]);
    let moments = (0..ROWS).map(|row| {
        Ok(Moment {
            key: if row % 10 == 3 { None } else { key(row) },
            cursor: Cursor::inclusive(row as i64 * 100_000),
        })
    });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let hook = ProgressHook::new(move |progress| hears.lock().unwrap().push(progress));
    let progress = hook.of_sweep(2, 3, ROWS);
    let swept = sweep.features_with_progress(&plan, moments, &Stop::default(), &progress);
    assert!(swept.is_ok());
    let heard = heard.lock().unwrap();
    heard.clone()
}

#[test]
fn a_sweep_tells_facts_and_rows_up_to_all_of_them() {
    let facts = Step::SweepFacts {
        sweep: 2,
        sweeps: 3,
    };
    let rows = Step::SweepRows {
        sweep: 2,
        sweeps: 3,
    };
    for (view, memory_bytes_max) in [("buying", 0), ("buying", 1 << 30), ("regulars", 1 << 30)] {
        let told = told(view, memory_bytes_max);
        let first_of_rows = told.partition_point(|progress| progress.step == facts);
        let (of_facts, of_rows) = told.split_at(first_of_rows);
        for (step, told, total) in [(facts, of_facts, FACTS * BATCHES), (rows, of_rows, ROWS)] {
            let about = format!("{step:?} of {view}");
            assert!(told.len() > BATCHES, "{about}");
            assert!(told.iter().all(|p| p.step == step), "{about}");
            assert!(told.is_sorted_by_key(|p| p.done), "{about}");
            let total = total as u64;
            let within = |p: &Progress| p.total == Some(total) && p.done <= total;
            assert!(told.iter().all(within), "{about}");
            assert_eq!(told.last().map(|p| p.done), Some(total), "{about}");
        }
    }
}

#[test]
fn no_more_is_told_than_there_is() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let hook = ProgressHook::new(move |progress| hears.lock().unwrap().push(progress));
    hook.tell(Step::WriteTable, 12, Some(10));
    hook.tell(Step::ReadSpine, 12, None);
    let heard = heard.lock().unwrap();
    let done: Vec<u64> = heard.iter().map(|p: &Progress| p.done).collect();
    assert_eq!(done, [10, 12]);
}
