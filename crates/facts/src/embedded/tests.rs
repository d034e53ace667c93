//! The fact log from outside: durability under crashes and faults, idempotence, lookups.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use headwater_env::{Faults, SimulatedFiles};
use headwater_schema::decode::RejectedRow;
use headwater_schema::{EntityKey, FactBatch, Value};
use proptest::prelude::*;

use super::*;
use crate::{Change, FoundRun};

/// (id, entity, time, amount)
type Row = (u32, u8, i64, i64);

fn batch(rows: &[Row]) -> FactBatch {
    let ids: StringArray = rows.iter().map(|r| Some(format!("id-{}", r.0))).collect();
    let who: StringArray = rows.iter().map(|r| Some(format!("who-{}", r.1))).collect();
    let times: Vec<i64> = rows.iter().map(|r| r.2).collect();
    let amounts: Int64Array = rows.iter().map(|r| Some(r.3)).collect();
    let time_column = TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids.clone())),
        ("who", Arc::new(who)),
        ("time", Arc::new(time_column)),
        ("amount", Arc::new(amounts)),
    ];
    FactBatch {
        contract: "payment".into(),
        columns: RecordBatch::try_from_iter(columns).expect("columns fit"),
        event_times: times,
        fact_ids: Some(ids),
        unknown_fields: None,
    }
}

fn request(rows: &[Row]) -> AppendRequest {
    AppendRequest::new(Change::Append(batch(rows)))
}

fn specs() -> Vec<IndexSpec> {
    vec![IndexSpec {
        contract: "payment".into(),
        key_columns: vec!["who".into()],
    }]
}

fn small() -> FactLogOptions {
    FactLogOptions {
        segment_bytes_max: 2000,
        ..FactLogOptions::default()
    }
}

/// A log whose segments lie on a simulated disk; the index can be made again, so it is real.
struct Bench {
    env: Env,
    disk: Arc<SimulatedFiles>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let (env, _, disk) = Env::simulated(seed);
        Self {
            env,
            disk,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn open(&self) -> Result<(EmbeddedFactLog, RecoveryReport), Problem> {
        EmbeddedFactLog::open(&self.env, self.folder.path(), small(), specs())
    }

    /// With one segment, whatever is appended.
    fn open_synced(&self, sync: SyncPolicy) -> Result<(EmbeddedFactLog, RecoveryReport), Problem> {
        let options = FactLogOptions {
            sync,
            ..FactLogOptions::default()
        };
        EmbeddedFactLog::open(&self.env, self.folder.path(), options, specs())
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files = self
            .env
            .files
            .list(&self.folder.path().join("log"))
            .expect("a log");
        files.retain(|f| f.extension().is_some_and(|e| e == "seg"));
        files.sort();
        files
    }
}

fn everything(log: &EmbeddedFactLog) -> Vec<(Sequence, String)> {
    let mut all = Vec::new();
    let mut next = log.first_sequence();
    while next <= log.last_sequence() {
        for batch in log.read(next, 10).expect("readable") {
            let ids = batch.batch.fact_ids.as_ref().expect("ids");
            for row in 0..batch.batch.len() {
                all.push((batch.first_sequence + row as u64, ids.value(row).to_owned()));
            }
            next = batch.last_sequence() + 1;
        }
    }
    all
}

#[test]
fn a_fact_is_kept_once_and_a_conflict_is_told() {
    let bench = Bench::new(1);
    let (log, _) = bench.open().expect("opens");
    let group = vec![
        request(&[(1, 1, 10, 5), (2, 1, 11, 6), (1, 1, 10, 5)]),
        request(&[(2, 1, 11, 6)]),
    ];
    let answers = log.append(group).expect("appends");
    assert_eq!(answers[0].duplicates, [2]);
    assert_eq!(answers[1].duplicates, [0]);
    assert_eq!(answers[1].last_sequence, 2);
    let again = log
        .append(vec![request(&[(2, 1, 11, 7), (3, 1, 1, 1)])])
        .expect("appends");
    assert_eq!(again[0].conflicts, [0]);
    assert_eq!(again[0].last_sequence, 3);
    let refused = AppendRequest {
        all_or_nothing: true,
        ..request(&[(4, 1, 1, 1), (2, 1, 11, 7)])
    };
    let refused = log
        .append(vec![refused, request(&[(4, 1, 1, 1)])])
        .expect("appends");
    assert!(refused[0].batch.is_none());
    assert_eq!(
        refused[1].last_sequence, 4,
        "a refused batch leaves no trace of its ids"
    );
    drop(log);
    let (log, _) = bench.open().expect("opens again");
    let known = log
        .append(vec![request(&[(1, 1, 10, 5), (3, 1, 1, 1), (4, 1, 1, 1)])])
        .expect("appends");
    assert_eq!(known[0].duplicates, [0, 1, 2]);
    assert_eq!(everything(&log).len(), 4);
}

#[test]
fn an_id_is_forgotten_after_the_dedup_window() {
    let bench = Bench::new(1);
    let (log, _) = bench.open().expect("opens");
    let windowed = || AppendRequest {
        dedup_window: Some(1_000_000),
        ..request(&[(1, 1, 10, 5)])
    };
    log.append(vec![windowed()]).expect("appends");
    bench.env.clock.sleep(std::time::Duration::from_secs(1));
    assert_eq!(
        log.append(vec![windowed()]).expect("appends")[0].duplicates,
        [0]
    );
    bench.env.clock.sleep(std::time::Duration::from_millis(1));
    assert_eq!(
        log.append(vec![windowed()]).expect("appends")[0].last_sequence,
        2
    );
}

fn rejected_rows(log: &EmbeddedFactLog, limit: usize) -> Vec<usize> {
    let query = crate::QuarantineQuery::waiting("payment".into(), limit);
    let rows = log.quarantined(&query).expect("readable");
    rows.iter().map(|row| row.row).collect()
}

#[test]
fn rejected_rows_are_kept_and_listed_newest_first() {
    let bench = Bench::new(1);
    let (log, _) = bench.open().expect("opens");
    for row in 0..3 {
        let rejected = RejectedRow {
            row,
            field: Some("amount".into()),
            rule: "type".into(),
            reason: "a string".into(),
            raw: format!("{{\"amount\":\"{row}\"}}"),
        };
        let mut request = request(&[]);
        request.rejected.push(rejected);
        log.append(vec![request]).expect("appends");
    }
    drop(log);
    let (log, _) = bench.open().expect("opens again");
    let rows = rejected_rows(&log, 2);
    assert_eq!(rows, [2, 1]);
    assert_eq!(log.stats().rejected["payment"], 3);
    assert_eq!(log.last_sequence(), 0);
}

#[test]
fn a_full_disk_is_an_error_and_later_appends_work() {
    let bench = Bench::new(3);
    let (log, _) = bench.open().expect("opens");
    log.append(vec![request(&[(1, 1, 1, 1)])]).expect("appends");
    for bytes_left in [0, 1, 11, 12, 40] {
        bench.disk.set_faults(Faults {
            bytes_left: Some(bytes_left),
            ..Faults::default()
        });
        let problem = log
            .append(vec![request(&[(2, 1, 2, 2)])])
            .expect_err("full");
        assert_eq!((problem.code, problem.retry), ("disk-full", true));
    }
    bench.disk.set_faults(Faults::default());
    let answer = log.append(vec![request(&[(2, 1, 2, 2)])]).expect("appends");
    assert_eq!(
        (answer[0].last_sequence, answer[0].duplicates.len()),
        (2, 0)
    );
    drop(log);
    bench.disk.crash();
    let (log, report) = bench.open().expect("opens again");
    assert_eq!(report.repairs, Vec::<String>::new());
    assert_eq!(everything(&log).len(), 2);
}

#[test]
fn a_failing_sync_is_never_acknowledged() {
    let bench = Bench::new(3);
    let (log, _) = bench.open().expect("opens");
    log.append(vec![request(&[(1, 1, 1, 1)])]).expect("appends");
    bench.disk.set_faults(Faults {
        sync_fails: true,
        ..Faults::default()
    });
    assert!(log.append(vec![request(&[(2, 1, 2, 2)])]).is_err());
    bench.disk.set_faults(Faults::default());
    let problem = log
        .append(vec![request(&[(3, 1, 2, 2)])])
        .expect_err("poisoned");
    assert_eq!(problem.code, "log-poisoned");
}

#[test]
fn a_torn_end_is_cut_off_and_reported() {
    let bench = Bench::new(4);
    let (log, _) = bench.open().expect("opens");
    log.append(vec![request(&[(1, 1, 1, 1)])]).expect("appends");
    let path = bench.segments().pop().expect("a segment");
    let before = bench.env.files.read(&path).expect("readable").len();
    log.append(vec![request(&[(2, 1, 2, 2)])]).expect("appends");
    drop(log);
    let whole = bench.env.files.read(&path).expect("readable");
    for length in before..whole.len() {
        bench
            .env
            .files
            .write_atomic(&path, &whole[..length])
            .expect("writable");
        let (log, report) = bench.open().expect("opens");
        assert_eq!(
            everything(&log),
            [(1, "id-1".to_owned())],
            "cut at {length}"
        );
        let cut = report
            .repairs
            .iter()
            .filter(|r| r.contains("cut off"))
            .count();
        assert_eq!(cut, usize::from(length > before), "{:?}", report.repairs);
        assert_eq!(
            log.append(vec![request(&[(3, 1, 1, 1)])]).expect("appends")[0].last_sequence,
            2
        );
    }
}

#[test]
fn a_flipped_bit_is_named_and_nothing_is_cut_off() {
    let bench = Bench::new(5);
    let (log, _) = bench.open().expect("opens");
    for id in 0..6 {
        log.append(vec![request(&[(id, 1, 1, 1)])])
            .expect("appends");
    }
    let path = bench.segments().pop().expect("a segment");
    log.checkpoint().expect("saved");
    drop(log);
    let whole = bench.env.files.read(&path).expect("readable");
    for byte in 0..whole.len() {
        bench.disk.flip(&path, byte, 3);
        let problem = match bench.open() {
            Err(problem) => problem,
            Ok(_) => panic!("a flip at byte {byte} went unseen"),
        };
        assert!(
            problem.to_string().contains(&path.display().to_string()),
            "{problem}"
        );
        assert_eq!(
            bench.env.files.read(&path).expect("readable").len(),
            whole.len()
        );
        bench.disk.flip(&path, byte, 3);
    }
    assert_eq!(everything(&bench.open().expect("opens").0).len(), 6);
}

/// A log of three groups of three requests each: the file, its bytes, and where groups begin and end.
fn three_groups(bench: &Bench) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let (log, _) = bench.open_synced(SyncPolicy::Always).expect("opens");
    let path = bench.segments().pop().expect("a segment");
    let length = || bench.env.files.read(&path).expect("readable").len();
    let mut ends = vec![length()];
    for group in 0..3 {
        let of = |id: u32| request(&[(group * 3 + id, 1, 1, 1)]);
        log.append((0..3).map(of).collect()).expect("appends");
        ends.push(length());
    }
    let bytes = bench.env.files.read(&path).expect("readable");
    (path, bytes, ends)
}

#[test]
fn what_is_lost_of_the_last_group_is_cut_off_whatever_is_left_of_it() {
    let bench = Bench::new(6);
    let (path, whole, ends) = three_groups(&bench);
    // A page that never reached the disk, with those behind it there.
    for lost in (ends[2]..ends[3]).step_by(7) {
        for length in [1, 9, 70] {
            let mut bytes = whole.clone();
            let end = (lost + length).min(bytes.len());
            bytes[lost..end].iter_mut().for_each(|b| *b ^= 0xA5);
            let written = bench.env.files.write_atomic(&path, &bytes);
            written.expect("written");
            let (log, report) = bench.open_synced(SyncPolicy::Always).expect("opens");
            assert_eq!(everything(&log).len(), 6, "lost {lost}..{end}");
            assert!(report.repairs.iter().any(|r| r.contains("cut off")));
        }
    }
}

#[test]
fn what_is_lost_of_an_earlier_group_is_refused() {
    let bench = Bench::new(6);
    let (path, whole, ends) = three_groups(&bench);
    for lost in ends[0]..ends[2] {
        let mut bytes = whole.clone();
        bytes[lost] ^= 0xA5;
        let written = bench.env.files.write_atomic(&path, &bytes);
        written.expect("written");
        let problem = bench
            .open_synced(SyncPolicy::Always)
            .err()
            .expect("refused");
        assert_eq!(problem.code, "log-corrupt", "byte {lost}");
        assert_eq!(bench.env.files.read(&path).expect("readable"), bytes);
    }
}

#[test]
fn what_was_never_synced_is_cut_off_though_a_later_group_is_whole() {
    let bench = Bench::new(6);
    let open = || bench.open_synced(SyncPolicy::Never);
    let (log, _) = open().expect("opens");
    let path = bench.segments().pop().expect("a segment");
    let mut ends = Vec::new();
    for id in 0..3 {
        log.append(vec![request(&[(id, 1, 1, 1)])])
            .expect("appends");
        ends.push(bench.env.files.read(&path).expect("readable").len());
        if id == 0 {
            log.sync().expect("synced");
        }
    }
    drop(log);
    let whole = bench.env.files.read(&path).expect("readable");
    let lose = |byte: usize| {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0xA5;
        let written = bench.env.files.write_atomic(&path, &bytes);
        written.expect("written");
        open()
    };
    let (log, _) = lose(ends[0] + 5).expect("opens");
    assert_eq!(everything(&log).len(), 1);
    drop(log);
    assert_eq!(
        lose(ends[0] - 5).err().expect("refused").code,
        "log-corrupt"
    );
}

#[test]
fn an_interval_is_kept_without_another_append() {
    let (env, clock, disk) = Env::simulated(8);
    let folder = tempfile::tempdir().expect("a folder");
    let options = FactLogOptions {
        sync: SyncPolicy::Interval(3000),
        ..small()
    };
    let open =
        || EmbeddedFactLog::open(&env, folder.path(), options.clone(), specs()).expect("opens");
    let (log, _) = open();
    assert_eq!(log.tend().expect("tended"), None);
    log.append(vec![request(&[(1, 1, 1, 1)])]).expect("appends");
    clock.advance(Duration::from_millis(2000));
    let left = log.tend().expect("tended");
    assert_eq!(left, Some(Duration::from_millis(1000)));
    clock.advance(Duration::from_millis(1000));
    assert_eq!(log.tend().expect("tended"), None);
    drop(log);
    disk.crash();
    assert_eq!(everything(&open().0).len(), 1);
}

#[test]
fn letting_facts_go_never_takes_the_index_ahead_of_the_log() {
    let bench = Bench::new(9);
    let options = FactLogOptions {
        sync: SyncPolicy::Never,
        ..small()
    };
    let open = || {
        let (env, folder) = (&bench.env, bench.folder.path());
        EmbeddedFactLog::open(env, folder, options.clone(), specs()).expect("opens")
    };
    let (log, _) = open();
    for id in 0..60u32 {
        log.append(vec![request(&[(id, 1, i64::from(id), 1)])])
            .expect("appends");
    }
    let cutoffs = BTreeMap::from([("payment".to_owned(), 30)]);
    assert!(log.enforce_retention(&cutoffs).expect("drops") > 0);
    drop(log);
    bench.disk.crash();
    let (log, report) = open();
    assert_eq!(report.repairs, [""; 0], "the index is as far as the log");
    let again = log.append(vec![request(&[(0, 1, 0, 1)])]);
    let again = again.expect("appends");
    assert_eq!(again[0].duplicates, [0], "the id of what went is known");
}

#[test]
fn a_checkpoint_beside_appends_never_takes_the_index_ahead_of_the_log() {
    let bench = Bench::new(10);
    let open = || bench.open_synced(SyncPolicy::Never).expect("opens");
    let (log, _) = open();
    // So many that a thread writes them out, and the checkpoint has to wait for it.
    for part in 0..16u32 {
        let rows: Vec<Row> = (0..8192).map(|n| (part * 8192 + n, 1, 1, 1)).collect();
        log.append(vec![request(&rows)]).expect("appends");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 1_000_000.. {
                log.append(vec![request(&[(id, 1, 1, 1)])])
                    .expect("appends");
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        log.checkpoint().expect("written");
        done.store(true, Ordering::Release);
    });
    drop(log);
    bench.disk.crash();
    let made_again = |said: &String| said.contains("made again");
    let (_, report) = open();
    assert!(!report.repairs.iter().any(made_again), "{report:?}");
}

#[test]
fn a_whole_record_in_a_wrong_place_is_refused() {
    let bench = Bench::new(5);
    let (log, _) = bench.open().expect("opens");
    log.append(vec![request(&[(1, 1, 1, 1)])]).expect("appends");
    let path = bench.segments().pop().expect("a segment");
    let before = bench.env.files.read(&path).expect("readable").len();
    log.append(vec![request(&[(2, 1, 2, 2)])]).expect("appends");
    drop(log);
    let whole = bench.env.files.read(&path).expect("readable");
    for bytes in [
        [&whole[..], &whole[before..]].concat(),
        [&whole[..16], &whole[before..]].concat(),
    ] {
        bench
            .env
            .files
            .write_atomic(&path, &bytes)
            .expect("written");
        let problem = bench.open().err().expect("refused");
        assert!(problem.detail.contains("stands here"), "{problem}");
    }
}

#[test]
fn a_missing_segment_is_named() {
    let bench = Bench::new(6);
    let (log, _) = bench.open().expect("opens");
    for id in 0..60 {
        log.append(vec![request(&[(id, 1, 1, 1)])])
            .expect("appends");
    }
    drop(log);
    let segments = bench.segments();
    assert!(segments.len() >= 3, "{segments:?}");
    bench.env.files.remove_file(&segments[1]).expect("removed");
    let problem = bench.open().err().expect("refused");
    assert!(problem.title.contains("missing"), "{problem}");
}

#[test]
fn expired_segments_are_dropped_and_reads_of_them_refused() {
    let bench = Bench::new(7);
    let (log, _) = bench.open().expect("opens");
    for id in 0..60u32 {
        log.append(vec![request(&[(id, 1, i64::from(id), 1)])])
            .expect("appends");
    }
    let dropped = log
        .enforce_retention(&BTreeMap::from([("payment".to_owned(), 30)]))
        .expect("drops");
    assert!(dropped > 0);
    assert!(log.first_sequence() > 1 && log.first_sequence() <= 31);
    assert_eq!(log.read(1, 10).expect_err("gone").code, "past-retention");
    let first = log.first_sequence();
    // The fact with sequence n is of time n - 1.
    let newest_dropped = Some(first as i64 - 2);
    assert_eq!(log.newest_dropped("payment"), newest_dropped);
    assert_eq!(log.newest_dropped("visit"), None);
    drop(log);
    let (log, _) = bench.open().expect("opens again");
    assert_eq!(log.first_sequence(), first);
    assert_eq!(log.newest_dropped("payment"), newest_dropped);
    assert_eq!(
        log.append(vec![request(&[(59, 1, 59, 1)])])
            .expect("appends")[0]
            .duplicates,
        [0]
    );
}

#[test]
fn the_newest_facts_are_found_without_reading_older_files() {
    let bench = Bench::new(8);
    let (log, _) = bench.open().expect("opens");
    // Fact n, but for the first, is of time n; every tenth one is late.
    for id in 0..120u32 {
        let late = if id % 10 == 9 { 20 } else { 0 };
        let time = if id == 0 { 1000 } else { i64::from(id) - late };
        log.append(vec![request(&[(id, 1, time, 1)])])
            .expect("appends");
    }
    let segments = bench.segments();
    assert!(segments.len() >= 6, "{segments:?}");
    let newest = |known_at: Sequence, until: Micros, newest: usize| {
        let scan = Scan {
            contract: "payment".into(),
            from: Position::MIN,
            until: Position::before(until),
            known_at,
            newest,
        };
        let naive = found::scan_all(&log, &scan);
        let found = log.scan(&scan).map(|found| {
            let run = |run: &FoundRun| run.event_times.clone();
            found.runs.iter().flat_map(run).collect::<Vec<_>>()
        });
        (found, naive)
    };
    // What isn't read can't be found damaged. The oldest file has the newest fact, so it is read.
    for path in &segments[1..segments.len() - 4] {
        bench.disk.flip(path, 40, 3);
    }
    for (known_at, until, wanted) in [(121, 900, 5), (118, 900, 5), (121, 110, 3)] {
        let (found, naive) = newest(known_at, until, wanted);
        assert_eq!(found.expect("they lie at the end").len(), wanted);
        assert_eq!(naive.expect_err("all is read").code, "log-corrupt");
    }
    assert_eq!(newest(121, 2000, 1).0.expect("it is read"), [1000]);
    let (all, _) = newest(121, 900, 100);
    assert_eq!(all.expect_err("the others are read").code, "log-corrupt");
}

fn change(log: &EmbeddedFactLog, change: Change) -> Appended {
    let mut answers = log
        .append(vec![AppendRequest::new(change)])
        .expect("appends");
    answers.pop().expect("an answer")
}

fn retract(ids: &[&str]) -> Change {
    Change::Retract {
        contract: "payment".into(),
        fact_ids: ids.iter().map(ToString::to_string).collect(),
    }
}

/// (sequence, time) of the facts that a `known_at` sees, by a scan and by a lookup of entity 1.
fn seen(log: &EmbeddedFactLog, known_at: Sequence) -> Vec<(Sequence, i64)> {
    let scanned = log
        .scan(&Scan {
            contract: "payment".into(),
            from: Position::MIN,
            until: Position::MAX,
            known_at,
            newest: 100,
        })
        .expect("scanned");
    let places = scanned.order.iter().map(|(run, row)| {
        let run = &scanned.runs[*run];
        (run.sequences[*row], run.event_times[*row])
    });
    places.collect()
}

#[test]
fn an_id_that_lives_twice_is_taken_back_newest_first() {
    let bench = Bench::new(2);
    let (log, _) = bench.open().expect("opens");
    let windowed = |row: Row| AppendRequest {
        dedup_window: Some(0),
        ..request(&[row])
    };
    for time in [10, 20, 30] {
        log.append(vec![windowed((1, 1, time, 5))])
            .expect("appends");
        bench.env.clock.sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(seen(&log, 3), [(1, 10), (2, 20), (3, 30)]);
    // A revision takes the place of the newest; below it the others still live.
    change(&log, Change::Revise(batch(&[(1, 2, 5, 5)])));
    assert_eq!(seen(&log, 4), [(4, 5), (1, 10), (2, 20)]);
    let twice = change(&log, retract(&["id-1", "id-1"]));
    assert_eq!((twice.unknown, twice.last_sequence), (vec![], 6));
    assert_eq!(seen(&log, 6), [(1, 10)]);
    drop(log);
    bench.disk.crash();
    let (log, _) = bench.open().expect("opens again");
    let again = change(&log, retract(&["id-1", "id-1"]));
    assert_eq!((again.unknown, again.last_sequence), (vec![1], 7));
    assert_eq!(seen(&log, 7), []);
    assert_eq!(seen(&log, 4), [(4, 5), (1, 10), (2, 20)]);
}

#[test]
fn a_fact_without_an_id_is_taken_back_by_its_sequence() {
    let bench = Bench::new(2);
    let (log, _) = bench.open().expect("opens");
    let anonymous = FactBatch {
        fact_ids: None,
        ..batch(&[(1, 1, 10, 5), (2, 1, 11, 5)])
    };
    change(&log, Change::Append(anonymous));
    let answer = change(&log, retract(&["2", "2", "3", "02", "id-1"]));
    assert_eq!(
        (answer.unknown, answer.last_sequence),
        (vec![1, 2, 3, 4], 3)
    );
    assert_eq!(change(&log, retract(&["2", "3"])).unknown, [0, 1]);
    assert_eq!(seen(&log, 3), [(1, 10)]);
}

#[test]
fn a_log_from_before_corrections_is_read_and_corrected() {
    let bench = Bench::new(1);
    let written = include_bytes!("../../fixtures/before-corrections.seg");
    let folder = bench.folder.path().join("log");
    bench.env.files.create_dir_all(&folder).expect("a folder");
    let file = folder.join("00000000000000000001.seg");
    bench
        .env
        .files
        .write_atomic(&file, written)
        .expect("written");
    let (log, report) = bench.open().expect("opens");
    assert_eq!(report.repairs, Vec::<String>::new());
    assert_eq!((everything(&log).len(), log.last_sequence()), (53, 53));
    assert_eq!(rejected_rows(&log, 9)[0], 3);
    let answer = change(&log, Change::Revise(batch(&[(1, 1, 99, 5), (2, 2, 11, 6)])));
    assert_eq!((answer.duplicates, answer.last_sequence), (vec![1], 54));
    assert!(seen(&log, 54).contains(&(54, 99)) && !seen(&log, 54).contains(&(1, 10)));
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<Row>>),
    Crash,
    Reopen,
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0u32..60, 0u8..4, -50i64..50, 0i64..2);
    let rows = proptest::collection::vec(row, 0..6);
    let step = prop_oneof![
        8 => proptest::collection::vec(rows, 1..4).prop_map(Step::Append),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::Checkpoint),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What the log should hold: id → (sequence, row).
#[derive(Default)]
struct Model {
    facts: BTreeMap<u32, (Sequence, Row)>,
    last: Sequence,
}

impl Model {
    fn append(&mut self, rows: &[Row]) -> (Vec<usize>, Vec<usize>) {
        let (mut duplicates, mut conflicts) = (Vec::new(), Vec::new());
        for (index, row) in rows.iter().enumerate() {
            match self.facts.get(&row.0) {
                Some((_, known)) if known == row => duplicates.push(index),
                Some(_) => conflicts.push(index),
                None => {
                    self.last += 1;
                    self.facts.insert(row.0, (self.last, *row));
                }
            }
        }
        (duplicates, conflicts)
    }
}

fn check_lookup(
    log: &EmbeddedFactLog,
    model: &Model,
    who: u8,
    from: i64,
    until: i64,
    newest: Option<usize>,
    known_at: Sequence,
) {
    let found = log
        .lookup(&Lookup {
            contract: "payment".into(),
            key_columns: vec!["who".into()],
            key: EntityKey::from_values(&[Value::string(format!("who-{who}"))]).expect("a key"),
            from: Position::before(from),
            until: Position::before(until),
            known_at,
            newest,
        })
        .expect("found");
    let got: Vec<(i64, Sequence)> = found
        .order
        .iter()
        .map(|(run, row)| {
            (
                found.runs[*run].event_times[*row],
                found.runs[*run].sequences[*row],
            )
        })
        .collect();
    let mut want: Vec<(i64, Sequence)> = model
        .facts
        .values()
        .filter(|(s, r)| r.1 == who && r.2 >= from && r.2 < until && *s <= known_at)
        .map(|(s, r)| (r.2, *s))
        .collect();
    want.sort_unstable();
    want.drain(..want.len().saturating_sub(newest.unwrap_or(usize::MAX)));
    assert_eq!(got, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_log_equals_its_model_through_crashes(
        seed in any::<u64>(),
        steps in steps(),
        reads in proptest::collection::vec((0u8..4, -60i64..60, -60i64..60, proptest::option::of(1usize..4), 0u64..80), 4),
    ) {
        let bench = Bench::new(seed);
        let mut log = Some(bench.open().expect("opens").0);
        let mut model = Model::default();
        for step in &steps {
            let open = log.as_ref().expect("open");
            match step {
                Step::Append(group) => {
                    let answers = open.append(group.iter().map(|rows| request(rows)).collect()).expect("appends");
                    for (rows, answer) in group.iter().zip(&answers) {
                        let (duplicates, conflicts) = model.append(rows);
                        prop_assert_eq!(&answer.duplicates, &duplicates);
                        prop_assert_eq!(&answer.conflicts, &conflicts);
                        prop_assert_eq!(answer.last_sequence, model.last);
                    }
                }
                Step::Checkpoint => open.checkpoint().expect("written"),
                Step::Reopen | Step::Crash => {
                    drop(log.take());
                    if matches!(step, Step::Crash) {
                        bench.disk.crash();
                    }
                    log = Some(bench.open().expect("opens again").0);
                }
            }
        }
        let log = log.expect("open");
        let mut want: Vec<(Sequence, String)> =
            model.facts.iter().map(|(id, (sequence, _))| (*sequence, format!("id-{id}"))).collect();
        want.sort();
        prop_assert_eq!(everything(&log), want);
        for (who, from, until, newest, known_at) in reads {
            check_lookup(&log, &model, who, from, until, newest, known_at);
        }
    }
}
