//! What every fact log must do: order, durability, idempotence, visibility, corrections, quarantine.
//!
//! Cases with the answers written out, and random streams of requests whose every answer must equal
//! that of `MemoryFactLog`, which goes through all it holds for every question.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use headwater_env::Env;
use headwater_facts::{
    AppendRequest, Appended, Change, FactLog, Fault, FoundFacts, Lookup, Mends, QuarantineQuery,
    Scan,
};
use headwater_schema::decode::RejectedRow;
use headwater_schema::{EntityKey, FactBatch, Position, SequencedBatch, Value};

mod random;

/// Opens one log, again and again.
pub type Open = Box<dyn Fn() -> Arc<dyn FactLog>>;

/// Facts of this contract have an id.
const WITH_ID: &str = "payment";
/// Facts of this one are known by their sequences.
const WITHOUT_ID: &str = "visit";
/// The column that facts are looked up by.
pub const KEY: &str = "who";

/// (id, entity, time, amount)
type Row = (u32, u8, i64, i64);

/// Runs every case on logs that `start` begins, each empty.
pub fn conforms(start: impl Fn(&Env) -> Open) {
    for case in [
        facts_are_kept_once,
        a_refused_batch_leaves_no_trace,
        revisions_replace,
        retractions_take_back,
        an_id_may_live_twice,
        rejected_rows_wait_until_they_are_facts,
    ] {
        let (env, _, _) = Env::simulated(1);
        env.clock.sleep(Duration::from_secs(1));
        case(&env, &start(&env));
    }
    random::equals_the_naive_log(start);
}

fn batch(contract: &str, rows: &[Row]) -> FactBatch {
    let ids: StringArray = rows.iter().map(|r| Some(format!("id-{}", r.0))).collect();
    let who: StringArray = rows.iter().map(|r| Some(format!("who-{}", r.1))).collect();
    let times: Vec<i64> = rows.iter().map(|r| r.2).collect();
    let amounts: Int64Array = rows.iter().map(|r| Some(r.3)).collect();
    let time_column = TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids.clone())),
        (KEY, Arc::new(who)),
        ("time", Arc::new(time_column)),
        ("amount", Arc::new(amounts)),
    ];
    FactBatch {
        contract: contract.into(),
        columns: RecordBatch::try_from_iter(columns).expect("columns fit"),
        event_times: times,
        fact_ids: (contract == WITH_ID).then_some(ids),
        unknown_fields: None,
    }
}

fn retract(ids: &[&str]) -> Change {
    Change::Retract {
        contract: WITH_ID.into(),
        fact_ids: ids.iter().map(ToString::to_string).collect(),
    }
}

fn rejected(row: usize) -> RejectedRow {
    RejectedRow {
        row,
        field: Some("amount".into()),
        rule: "type".into(),
        reason: "a string".into(),
        raw: format!("{{\"row\":{row}}}"),
    }
}

fn append(log: &Arc<dyn FactLog>, request: AppendRequest) -> Appended {
    let mut answers = log.append(vec![request]).expect("appends");
    answers.pop().expect("an answer")
}

fn change(log: &Arc<dyn FactLog>, change: Change) -> Appended {
    append(log, AppendRequest::new(change))
}

fn add(log: &Arc<dyn FactLog>, rows: &[Row]) -> Appended {
    change(log, Change::Append(batch(WITH_ID, rows)))
}

/// (time, sequence) of facts in their order, checked against the columns they came with.
fn places(found: &FoundFacts) -> Vec<(i64, u64)> {
    let place = |(run, row): &(usize, usize)| {
        let run = &found.runs[*run];
        let time = run.columns.column_by_name("time").expect("a column");
        let stored = Value::from_array(time.as_ref(), *row);
        assert_eq!(stored, Value::Timestamp(run.event_times[*row]));
        (run.event_times[*row], run.sequences[*row])
    };
    found.order.iter().map(place).collect()
}

fn scan(contract: &str, known_at: u64) -> Scan {
    Scan {
        contract: contract.into(),
        from: Position::MIN,
        until: Position::MAX,
        known_at,
        newest: usize::MAX,
    }
}

fn lookup(contract: &str, who: u8, known_at: u64) -> Lookup {
    let key = [Value::string(format!("who-{who}"))];
    Lookup {
        contract: contract.into(),
        key_columns: vec![KEY.into()],
        key: EntityKey::from_values(&key).expect("a key"),
        from: Position::MIN,
        until: Position::MAX,
        known_at,
        newest: None,
    }
}

/// What a `known_at` sees of the facts with ids.
fn seen(log: &Arc<dyn FactLog>, known_at: u64) -> Vec<(i64, u64)> {
    places(&log.scan(&scan(WITH_ID, known_at)).expect("scanned"))
}

fn of_entity(log: &Arc<dyn FactLog>, who: u8, known_at: u64) -> Vec<(i64, u64)> {
    let found = log.lookup(&lookup(WITH_ID, who, known_at));
    places(&found.expect("found"))
}

fn facts_are_kept_once(_: &Env, open: &Open) {
    let log = open();
    assert_eq!((log.sequences(), log.newest(WITH_ID)), ((1, 0), None));
    let group = [
        [(1, 1, 10, 5), (2, 2, 11, 6)],
        [(3, 1, 9, 5), (1, 1, 10, 5)],
    ];
    let group = group.map(|rows| AppendRequest::new(Change::Append(batch(WITH_ID, &rows))));
    let answers = log.append(group.to_vec()).expect("appends");
    let lasts: Vec<u64> = answers.iter().map(|a| a.last_sequence).collect();
    assert_eq!((lasts, &answers[1].duplicates), (vec![2, 3], &vec![1]));
    let again = add(&log, &[(2, 2, 11, 7), (3, 1, 9, 5)]);
    assert_eq!((again.conflicts, again.duplicates), (vec![0], vec![1]));
    assert!(again.batch.is_none());
    drop(log);
    let log = open();
    assert_eq!(add(&log, &[(1, 1, 10, 5)]).duplicates, [0]);
    assert_eq!((log.sequences(), log.newest(WITH_ID)), ((1, 3), Some(11)));
    assert_eq!(seen(&log, u64::MAX), [(9, 3), (10, 1), (11, 2)]);
    assert_eq!(of_entity(&log, 1, 2), [(10, 1)]);
}

fn a_refused_batch_leaves_no_trace(_: &Env, open: &Open) {
    let log = open();
    add(&log, &[(1, 1, 10, 5)]);
    let refused = AppendRequest {
        all_or_nothing: true,
        ..AppendRequest::new(Change::Append(batch(
            WITH_ID,
            &[(2, 1, 1, 1), (1, 1, 10, 6)],
        )))
    };
    let then = AppendRequest::new(Change::Append(batch(WITH_ID, &[(2, 1, 1, 1)])));
    let answers = log.append(vec![refused, then]).expect("appends");
    assert_eq!(
        (&answers[0].conflicts, answers[0].last_sequence),
        (&vec![1], 1)
    );
    assert_eq!(
        (&answers[1].duplicates, answers[1].last_sequence),
        (&vec![], 2)
    );
}

fn revisions_replace(_: &Env, open: &Open) {
    let log = open();
    add(&log, &[(1, 1, 10, 5), (2, 1, 11, 5)]);
    let revise = |rows: &[Row]| Change::Revise(batch(WITH_ID, rows));
    // Another time and another entity; the same payload; an unknown id; the same id twice.
    let rows = [(1, 2, 30, 7), (2, 1, 11, 5), (3, 1, 1, 1), (3, 1, 2, 2)];
    let answer = change(&log, revise(&rows));
    assert_eq!((answer.duplicates, answer.last_sequence), (vec![1], 5));
    assert_eq!(change(&log, revise(&rows[..1])).duplicates, [0]);
    drop(log);
    let log = open();
    assert_eq!(seen(&log, 2), [(10, 1), (11, 2)]);
    assert_eq!(seen(&log, 4), [(1, 4), (11, 2), (30, 3)]);
    assert_eq!(seen(&log, 5), [(2, 5), (11, 2), (30, 3)]);
    assert_eq!(of_entity(&log, 1, 2), [(10, 1), (11, 2)]);
    assert_eq!(of_entity(&log, 1, 5), [(2, 5), (11, 2)]);
    assert_eq!(of_entity(&log, 2, 5), [(30, 3)]);
    assert_eq!(add(&log, &[(1, 1, 10, 5)]).conflicts, [0]);
}

fn retractions_take_back(_: &Env, open: &Open) {
    let log = open();
    add(&log, &[(1, 1, 10, 5), (2, 1, 11, 5)]);
    let answer = change(&log, retract(&["id-1", "id-9", "id-1"]));
    assert_eq!((answer.unknown, answer.last_sequence), (vec![1, 2], 3));
    let batch_of = answer.batch.expect("a retraction takes a sequence");
    assert_eq!((batch_of.batch.len(), batch_of.len()), (0, 1));
    assert_eq!(change(&log, retract(&["id-1"])).unknown, [0]);
    drop(log);
    let log = open();
    assert_eq!(log.sequences(), (1, 3));
    let read = log.read(3, 10).expect("readable");
    assert_eq!(
        shown(read.last().expect("a batch")).1,
        [(1, 3, "id-1".into(), 10)]
    );
    assert_eq!((seen(&log, 2).len(), seen(&log, 3)), (2, vec![(11, 2)]));
    assert_eq!(add(&log, &[(1, 1, 10, 5)]).last_sequence, 4);
    assert_eq!(of_entity(&log, 1, 4), [(10, 4), (11, 2)]);
    // Where facts have no id their sequence is one.
    change(
        &log,
        Change::Append(batch(WITHOUT_ID, &[(1, 1, 10, 5), (2, 1, 11, 5)])),
    );
    let by_sequence = |ids: &[&str]| Change::Retract {
        contract: WITHOUT_ID.into(),
        fact_ids: ids.iter().map(ToString::to_string).collect(),
    };
    let answer = change(&log, by_sequence(&["6", "6", "06", "7", "1", "id-2"]));
    assert_eq!(
        (answer.unknown, answer.last_sequence),
        (vec![1, 2, 3, 4, 5], 7)
    );
    assert_eq!(change(&log, by_sequence(&["6", "7"])).unknown, [0, 1]);
    assert_eq!(
        places(&log.scan(&scan(WITHOUT_ID, 7)).expect("scanned")),
        [(10, 5)]
    );
}

fn an_id_may_live_twice(env: &Env, open: &Open) {
    let log = open();
    for time in [10, 20, 30] {
        let request = AppendRequest::new(Change::Append(batch(WITH_ID, &[(1, 1, time, 5)])));
        append(
            &log,
            AppendRequest {
                dedup_window: Some(0),
                ..request
            },
        );
        env.clock.sleep(Duration::from_millis(1));
    }
    change(&log, Change::Revise(batch(WITH_ID, &[(1, 2, 5, 5)])));
    assert_eq!(seen(&log, 4), [(5, 4), (10, 1), (20, 2)]);
    change(&log, retract(&["id-1", "id-1"]));
    assert_eq!(seen(&log, 6), [(10, 1)]);
    drop(log);
    let log = open();
    let answer = change(&log, retract(&["id-1", "id-1"]));
    assert_eq!((answer.unknown, answer.last_sequence), (vec![1], 7));
    assert_eq!(seen(&log, 7), []);
}

fn waiting(log: &Arc<dyn FactLog>) -> Vec<(u64, String)> {
    let rows = log.quarantined(&QuarantineQuery::waiting(WITH_ID.into(), usize::MAX));
    let rows = rows.expect("readable").into_iter();
    rows.map(|row| (row.id, row.fault.rule)).collect()
}

fn rejected_rows_wait_until_they_are_facts(_: &Env, open: &Open) {
    let log = open();
    let with_rejected = |rows: std::ops::Range<usize>| AppendRequest {
        rejected: rows.map(rejected).collect(),
        ..AppendRequest::new(Change::Append(batch(WITH_ID, &[(1, 1, 10, 5)])))
    };
    append(&log, with_rejected(0..2));
    append(&log, with_rejected(2..4));
    let type_of = |id: u64| (id, "type".to_owned());
    assert_eq!(waiting(&log), [4, 3, 2, 1].map(type_of));
    let mended = || AppendRequest {
        mends: Mends {
            rows: vec![2, 3, 9, 2],
            again: vec![(
                4,
                Fault {
                    rule: "required".into(),
                    ..Fault::conflict()
                },
            )],
        },
        ..AppendRequest::new(Change::Append(batch(
            WITH_ID,
            &[(2, 1, 1, 1), (1, 1, 10, 6), (7, 1, 1, 1), (8, 1, 1, 1)],
        )))
    };
    // The row 9 isn't in quarantine, and the row 2 is mended once.
    let answer = append(&log, mended());
    assert_eq!((answer.duplicates, answer.conflicts), (vec![2, 3], vec![1]));
    let again = append(&log, mended());
    assert_eq!((again.duplicates, again.last_sequence), (vec![0, 2, 3], 2));
    drop(log);
    let log = open();
    let left = [
        (4, "required".to_owned()),
        (3, "conflict".to_owned()),
        type_of(1),
    ];
    assert_eq!(waiting(&log), left);
    let query = QuarantineQuery {
        ids: Some(BTreeSet::from([1, 2, 77])),
        resolved: true,
        ..QuarantineQuery::waiting(WITH_ID.into(), 9)
    };
    let all = log.quarantined(&query).expect("readable");
    let resolved: Vec<(u64, bool)> = all.iter().map(|r| (r.id, r.resolved.is_some())).collect();
    assert_eq!(resolved, [(2, true), (1, false)]);
    assert_eq!((all[0].row, all[0].raw.as_str()), (1, "{\"row\":1}"));
    let newest = log.quarantined(&QuarantineQuery::waiting(WITH_ID.into(), 1));
    assert_eq!(newest.expect("readable")[0].id, 4);
}

/// (sequence, id, time) of new facts, and (sequence, removed at, id, time) of removed ones.
type Shown = (Vec<(u64, String, i64)>, Vec<(u64, u64, String, i64)>);

fn shown(batch: &SequencedBatch) -> Shown {
    let id = |facts: &FactBatch, row: usize| {
        let ids = facts.fact_ids.as_ref();
        ids.map_or(String::new(), |ids| ids.value(row).to_owned())
    };
    let facts = &batch.batch;
    let new = (0..facts.len()).map(|row| {
        (
            batch.first_sequence + row as u64,
            id(facts, row),
            facts.event_times[row],
        )
    });
    let mut removed = Vec::new();
    for run in &batch.removed {
        for (row, sequence) in run.sequences.iter().enumerate() {
            let (id, time) = (id(&run.facts, row), run.facts.event_times[row]);
            removed.push((*sequence, run.removed_at[row], id, time));
        }
    }
    removed.sort();
    (new.collect(), removed)
}
