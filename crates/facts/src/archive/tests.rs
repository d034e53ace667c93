//! The archive from outside: what it gives back, what a crash leaves, what other readers see.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, MapArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use headwater_env::{Env, SimulatedFiles};
use headwater_schema::decode::RejectedRow;
use headwater_schema::{FactBatch, Problem, Sequence};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::{
    AppendRequest, Change, EmbeddedFactLog, FactLog, FactLogOptions, IndexSpec, QuarantineQuery,
};

/// A log and its archive on a simulated disk.
struct Bench {
    env: Env,
    disk: Arc<SimulatedFiles>,
    folder: tempfile::TempDir,
    after: i64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let (env, clock, disk) = Env::simulated(seed);
        use headwater_env::Clock;
        clock.sleep(std::time::Duration::from_secs(1));
        Self {
            env,
            disk,
            folder: tempfile::tempdir().expect("a folder"),
            after: 0,
        }
    }

    fn store(&self) -> Arc<dyn ArchiveStore> {
        let folder = self.folder.path().join("lake");
        Arc::new(FolderStore::new(self.env.clone(), &folder))
    }

    fn options(&self) -> FactLogOptions {
        FactLogOptions {
            segment_bytes_max: 2000,
            archive: Some(ArchiveOptions {
                store: self.store(),
                after: self.after,
                cache_bytes_max: 10_000,
            }),
            ..FactLogOptions::default()
        }
    }

    fn open(&self) -> EmbeddedFactLog {
        let specs = vec![IndexSpec {
            contract: "payment".into(),
            key_columns: vec!["who".into()],
        }];
        let opened = EmbeddedFactLog::open(&self.env, self.folder.path(), self.options(), specs);
        opened.expect("opens").0
    }
}

fn run(log: &EmbeddedFactLog) -> Result<ArchiveRun, Problem> {
    log.seal()?;
    log.run_archive(&|| false)
}

const DAY: i64 = 86_400_000_000;

/// Facts with a column of every type, and names that the archive uses itself.
fn varied(ids: std::ops::Range<i64>) -> FactBatch {
    let n = ids.clone().count();
    let texts = |prefix: &str| {
        let texts = ids
            .clone()
            .map(|i| (i % 5 != 0).then(|| format!("{prefix}{i}")));
        Arc::new(texts.collect::<StringArray>()) as ArrayRef
    };
    let numbers: Int64Array = ids.clone().map(|i| (i % 3 != 0).then_some(i)).collect();
    let names: StringArray = ids.clone().map(|i| Some(format!("id-{i}"))).collect();
    let times: Vec<i64> = ids.clone().map(|i| (i % 3 - 1) * DAY + i).collect();
    let list = ids.clone().map(|i| {
        let items = (0..i % 4).map(|j| (j != 1).then_some(j));
        (i % 7 != 0).then(|| items.collect::<Vec<_>>())
    });
    let fields = Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
    ]);
    let parts: Vec<ArrayRef> = vec![Arc::new(numbers.clone()), texts("s")];
    let keys: StringArray = (0..n).map(|i| Some(format!("k{i}"))).collect();
    let pair = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Float64, true),
    ]);
    let values: Float64Array = (0..n).map(|i| (i != 2).then_some(i as f64 / 3.0)).collect();
    let pairs: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values)];
    let entries = StructArray::new(pair.clone(), pairs, None);
    let map = MapArray::new(
        Arc::new(Field::new("entries", DataType::Struct(pair), false)),
        OffsetBuffer::from_lengths(std::iter::repeat_n(1, n)),
        entries,
        None,
        false,
    );
    let decimals = ids
        .clone()
        .map(|i| Some(i128::from(i) * 1_000_000_000_000_000_007));
    let decimals: Decimal128Array = decimals.collect();
    let times_column = TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(names.clone())),
        ("who", texts("who-")),
        ("time", Arc::new(times_column)),
        ("amount", Arc::new(numbers)),
        ("_sequence", texts("own")),
        ("__fact_id", texts("own2")),
        (
            "flag",
            Arc::new(
                ids.clone()
                    .map(|i| Some(i % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter(
                ids.clone().map(|i| Some(i as i32 - 5)),
            )),
        ),
        (
            "raw",
            Arc::new(BinaryArray::from_iter(
                ids.clone().map(|i| (i % 4 != 0).then(|| vec![i as u8, 0])),
            )),
        ),
        (
            "exact",
            Arc::new(decimals.with_precision_and_scale(38, 9).expect("fits")),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(list)),
        ),
        ("struct", Arc::new(StructArray::new(fields, parts, None))),
        ("map", Arc::new(map)),
        ("empty", new_null_array(&DataType::Float64, n)),
        (
            "ratio",
            Arc::new(
                ids.clone()
                    .map(|i| Some(-(i as f64) / 7.0))
                    .collect::<Float64Array>(),
            ),
        ),
    ];
    FactBatch {
        contract: "payment".into(),
        columns: RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .expect("columns fit"),
        event_times: times,
        fact_ids: Some(names),
        unknown_fields: Some(
            ids.map(|i| (i % 2 == 1).then(|| format!("{{\"x\":{i}}}")))
                .collect(),
        ),
    }
}

/// Facts of a contract without ids, with other columns.
fn plain(ids: std::ops::Range<i64>) -> FactBatch {
    let numbers: Int64Array = ids.clone().map(Some).collect();
    FactBatch {
        contract: "a visit/ö".into(),
        columns: RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).expect("fits"),
        event_times: ids.map(|i| i * DAY / 2).collect(),
        fact_ids: None,
        unknown_fields: None,
    }
}

fn retract(ids: &[&str]) -> Change {
    Change::Retract {
        contract: "payment".into(),
        fact_ids: ids.iter().map(ToString::to_string).collect(),
    }
}

/// Appends, revisions, retractions and rejected rows.
fn fill(log: &EmbeddedFactLog) {
    let rejected = RejectedRow {
        row: 7,
        field: Some("amount".into()),
        rule: "type".into(),
        reason: "a string".into(),
        raw: "{}".into(),
    };
    let mut with_rejected = AppendRequest::new(Change::Append(plain(3..6)));
    with_rejected.rejected.push(rejected);
    let mut revised = varied(2..9);
    revised.columns = {
        let mut arrays = revised.columns.columns().to_vec();
        arrays[3] = Arc::new(Int64Array::from(vec![-1; 7]));
        RecordBatch::try_new(revised.columns.schema(), arrays).expect("fits")
    };
    for request in [
        AppendRequest::new(Change::Append(varied(0..40))),
        AppendRequest::new(Change::Append(plain(0..3))),
        with_rejected,
        AppendRequest::new(Change::Append(varied(40..41))),
        AppendRequest::new(Change::Revise(revised)),
        AppendRequest::new(retract(&["id-3", "id-20"])),
        AppendRequest::new(Change::Append(varied(41..60))),
        AppendRequest::new(Change::Append(varied(20..21))),
    ] {
        log.append(vec![request]).expect("appends");
    }
}

/// Everything that a log gives to a reader, in words that can be compared.
fn everything(log: &EmbeddedFactLog) -> Vec<String> {
    let (mut all, mut next) = (Vec::new(), log.first_sequence());
    while next <= log.last_sequence() {
        for batch in log.read(next, 10).expect("readable") {
            next = batch.last_sequence() + 1;
            all.push(format!("{batch:?}"));
        }
    }
    let query = |contract: &str| QuarantineQuery::waiting(contract.into(), 10);
    all.push(format!("{:?}", log.quarantined(&query("a visit/ö"))));
    all
}

#[test]
fn the_archive_gives_back_what_the_log_had() {
    let bench = Bench::new(1);
    let log = bench.open();
    fill(&log);
    let before = everything(&log);
    let done = run(&log).expect("archives");
    assert_eq!(done.segments, done.released);
    let stats = log.stats();
    assert_eq!(
        stats.segments, 1,
        "only the file that is appended to is left"
    );
    assert_eq!(stats.contracts["payment"].facts, 68);
    assert_eq!(everything(&log), before);
    // The cache holds less than all segments: they are read back one after another.
    let archived = log.archive().expect("an archive").stats();
    assert_eq!(
        (archived.through, archived.facts),
        (log.last_sequence(), 74)
    );
    assert!(archived.cache_bytes < 20_000);
    drop(log);
    bench.disk.crash();
    let log = bench.open();
    assert_eq!(everything(&log), before);
    fill(&log);
    let unarchived = Bench::new(1).open();
    fill(&unarchived);
    fill(&unarchived);
    let last = unarchived.last_sequence();
    assert_eq!(
        log.last_sequence(),
        last,
        "ids are known that only the archive has"
    );
}

#[test]
fn what_the_archive_has_is_read_though_the_disk_is_full() {
    let bench = Bench::new(1);
    let log = bench.open();
    fill(&log);
    let before = everything(&log);
    run(&log).expect("archives");
    let full = |bytes_left| headwater_env::Faults {
        bytes_left,
        ..headwater_env::Faults::default()
    };
    for bytes_left in [0, 100, 3000] {
        bench.disk.set_faults(full(Some(bytes_left)));
        assert_eq!(everything(&log), before, "with room for {bytes_left} bytes");
    }
    bench.disk.set_faults(full(None));
    assert_eq!(everything(&log), before);
    let kept = log.archive().expect("an archive").stats().cache_bytes;
    assert!(kept > 0, "files are kept again once there is room");
}

fn rows_of(bench: &Bench, files: &[ArchivedFile]) -> Vec<(Sequence, RecordBatch)> {
    let mut rows = Vec::new();
    for file in files {
        let bytes = bench
            .store()
            .get(&file.object.path)
            .expect("readable")
            .expect("is there");
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|r| r.build());
        for batch in reader.expect("Parquet") {
            let batch = batch.expect("rows");
            for (row, sequence) in columns::sequences(&batch)
                .expect("sequences")
                .iter()
                .enumerate()
            {
                rows.push((*sequence as u64, batch.slice(row, 1)));
            }
        }
    }
    rows
}

#[test]
fn others_see_each_fact_once_by_contract_and_day() {
    let bench = Bench::new(2);
    let log = bench.open();
    fill(&log);
    run(&log).expect("archives");
    let listing = log.archive().expect("an archive").listing("payment");
    assert_eq!(listing.through, log.last_sequence());
    let facts = rows_of(&bench, &listing.facts);
    let mut seen: Vec<Sequence> = facts.iter().map(|(sequence, _)| *sequence).collect();
    seen.sort_unstable();
    let once = seen.len();
    seen.dedup();
    assert_eq!((seen.len(), once), (68, 68));
    let removed = rows_of(&bench, &listing.corrections);
    assert_eq!(removed.len(), 9, "seven revised, two retracted");
    for file in &listing.facts {
        let day = headwater_schema::time::format_date(file.day.expect("a day"));
        let folder = format!("contract=payment/day={day}/");
        assert!(
            file.object.path.starts_with(&folder),
            "{}",
            file.object.path
        );
    }
    let visits = log.archive().expect("an archive").listing("a visit/ö");
    assert!(
        visits.facts[0]
            .object
            .path
            .starts_with("contract=a%20visit%2F%C3%B6/day=1970-01-01/")
    );
    assert_eq!(visits.facts.iter().map(|f| f.rows).sum::<u64>(), 6);
}

#[test]
fn an_archive_has_one_log() {
    let bench = Bench::new(3);
    let log = bench.open();
    fill(&log);
    run(&log).expect("archives");
    let other = Bench {
        env: bench.env.clone(),
        disk: bench.disk.clone(),
        folder: tempfile::tempdir().expect("a folder"),
        after: 0,
    };
    let options = FactLogOptions {
        archive: bench.options().archive,
        ..FactLogOptions::default()
    };
    let opened = EmbeddedFactLog::open(&other.env, other.folder.path(), options, Vec::new());
    let refused = run(&opened.expect("opens").0).expect_err("another's");
    assert_eq!(refused.code, "archive-of-another");
    drop(log);
    let without = FactLogOptions::default();
    let refused = EmbeddedFactLog::open(&bench.env, bench.folder.path(), without, Vec::new());
    assert_eq!(refused.err().expect("refused").code, "no-archive");
}

#[test]
fn damage_is_told_and_nothing_leaves_the_log() {
    let mut bench = Bench::new(4);
    bench.after = DAY;
    let log = bench.open();
    fill(&log);
    let done = run(&log).expect("archives");
    assert!(done.segments > 0 && done.released == 0);
    bench
        .env
        .clock
        .sleep(std::time::Duration::from_secs(2 * 86_400));
    let file = log.archive().expect("an archive").listing("payment").facts[0].clone();
    let store = bench.store();
    let bytes = store
        .get(&file.object.path)
        .expect("readable")
        .expect("is there");
    let mut damaged = bytes.to_vec();
    damaged[10] ^= 1;
    store.put(&file.object.path, damaged).expect("writes");
    let refused = run(&log).expect_err("damaged");
    assert_eq!(refused.code, "archive-corrupt");
    assert!(log.archive().expect("an archive").stats().failure.is_some());
    let before = everything(&log);
    store
        .put(&file.object.path, bytes.to_vec())
        .expect("writes");
    assert!(run(&log).expect("archives").released > 0);
    assert_eq!(everything(&log), before);
    assert!(log.archive().expect("an archive").verify().expect("whole") > 0);
}

#[test]
fn retention_removes_whole_segments_from_the_archive() {
    let bench = Bench::new(5);
    let log = bench.open();
    for n in 0..20 {
        let request = AppendRequest::new(Change::Append(plain(4 * n..4 * n + 4)));
        log.append(vec![request]).expect("appends");
        run(&log).expect("archives");
    }
    let cutoffs = [("a visit/ö".to_owned(), 20 * DAY)].into();
    assert_eq!(log.enforce_retention(&cutoffs).expect("lets go"), 10);
    assert_eq!(log.first_sequence(), 41);
    run(&log).expect("removes");
    let left = log.archive().expect("an archive").listing("a visit/ö");
    assert_eq!(left.facts.iter().map(|f| f.first_sequence).min(), Some(41));
    let gone = entry::facts_path("a visit/ö", 0, 1, 0);
    assert!(bench.store().get(&gone).expect("readable").is_none());
    drop(log);
    assert_eq!(bench.open().first_sequence(), 41);
}

/// Whatever operation of the disk is the last before a crash, every fact is found once afterwards.
#[test]
fn a_crash_at_any_write_loses_and_doubles_nothing() {
    let (expected, bytes) = {
        let bench = Bench::new(6);
        let log = bench.open();
        fill(&log);
        let expected = everything(&log);
        run(&log).expect("archives");
        (expected, log.archive().expect("an archive").stats().bytes)
    };
    // Entries and what is read back take room too.
    for bytes_left in (0..4 * bytes).step_by(bytes as usize / 7) {
        let bench = Bench::new(6);
        let log = bench.open();
        fill(&log);
        bench.disk.set_faults(headwater_env::Faults {
            bytes_left: Some(bytes_left),
            ..headwater_env::Faults::default()
        });
        let done = run(&log);
        bench.disk.set_faults(headwater_env::Faults::default());
        drop(log);
        bench.disk.crash();
        let log = bench.open();
        assert_eq!(everything(&log), expected, "after {bytes_left} bytes");
        run(&log).expect("archives");
        assert_eq!(
            everything(&log),
            expected,
            "after {bytes_left} bytes, again"
        );
        let listing = log.archive().expect("an archive").listing("payment");
        assert_eq!(rows_of(&bench, &listing.facts).len(), 68);
        if done.is_ok() {
            return;
        }
    }
    panic!("the archive of {bytes} bytes never had room");
}
