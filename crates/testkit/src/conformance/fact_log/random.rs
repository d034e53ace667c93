//! Random streams of requests, answered as the naive log answers them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headwater_env::Env;
use headwater_facts::{
    AppendRequest, Appended, Change, FactLog, Fault, Lookup, MemoryFactLog, Mends, QuarantineQuery,
    Scan, Wanted,
};
use headwater_schema::Position;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Open, Row, Shown, WITH_ID, WITHOUT_ID, batch, lookup, places, rejected, scan, shown};

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Request>),
    Reopen,
    Wait,
}

#[derive(Debug, Clone)]
struct Request {
    kind: u8,
    with_id: bool,
    rows: Vec<Row>,
    all_or_nothing: bool,
    windowed: bool,
    rejected: usize,
    mends: Vec<u64>,
    again: Option<u64>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0u32..25, 0u8..3, -20i64..20, 0i64..2);
    let request = (
        0u8..5,
        prop::bool::weighted(0.8),
        prop::collection::vec(row, 0..6),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        0usize..3,
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0u64..12, 6)],
        prop::option::weighted(0.1, 0u64..12),
    );
    let request = request.prop_map(
        |(kind, with_id, rows, all_or_nothing, windowed, rejected, mends, again)| Request {
            kind,
            with_id,
            rows,
            all_or_nothing,
            windowed,
            rejected,
            mends,
            again,
        },
    );
    let step = prop_oneof![
        8 => prop::collection::vec(request, 1..4).prop_map(Step::Append),
        1 => Just(Step::Reopen),
        2 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..16)
}

impl Request {
    fn build(&self) -> AppendRequest {
        let contract = if self.with_id { WITH_ID } else { WITHOUT_ID };
        let change = match self.kind {
            0..=2 => Change::Append(batch(contract, &self.rows)),
            3 => Change::Revise(batch(contract, &self.rows)),
            _ => Change::Retract {
                contract: contract.into(),
                fact_ids: self
                    .rows
                    .iter()
                    .map(|row| match self.with_id {
                        true => format!("id-{}", row.0),
                        false => row.0.to_string(),
                    })
                    .collect(),
            },
        };
        let mends = match self.kind {
            4 => Vec::new(),
            _ => self.mends.iter().take(self.rows.len()).copied().collect(),
        };
        AppendRequest {
            rejected: (0..self.rejected).map(rejected).collect(),
            // A request that mends rows is never all or nothing.
            all_or_nothing: self.all_or_nothing && mends.is_empty(),
            dedup_window: self.windowed.then_some(0),
            mends: Mends {
                rows: mends,
                again: self
                    .again
                    .map(|id| (id, Fault::conflict()))
                    .into_iter()
                    .collect(),
            },
            change,
        }
    }
}

/// Everything that an answer says.
fn told(answer: &Appended) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {}",
        answer.batch.as_deref().map(shown),
        answer.duplicates,
        answer.conflicts,
        answer.unknown,
        answer.last_sequence
    )
}

/// Everything that a log holds, from one sequence on.
fn held(log: &Arc<dyn FactLog>, from: u64) -> Vec<Shown> {
    let (mut all, mut next) = (Vec::new(), from.max(1));
    while next <= log.last_sequence() {
        for batch in log.read(next, 5).expect("readable") {
            assert!(batch.first_sequence <= next && next <= batch.last_sequence());
            next = batch.last_sequence() + 1;
            all.push(shown(&batch));
        }
    }
    all
}

pub(super) fn equals_the_naive_log(start: impl Fn(&Env) -> Open) {
    let reads = (0u64..60, -25i64..25, -25i64..25, 1usize..9);
    let reads = prop::collection::vec(reads, 6);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = runner.run(&(steps(), reads), |(steps, reads)| {
        let (env, _, _) = Env::simulated(7);
        let open = start(&env);
        let naive: Arc<dyn FactLog> = Arc::new(MemoryFactLog::new(env.clone()));
        let mut log = open();
        for step in &steps {
            match step {
                Step::Wait => env.clock.sleep(Duration::from_millis(1)),
                Step::Reopen => {
                    drop(log);
                    log = open();
                }
                Step::Append(requests) => {
                    let group: Vec<AppendRequest> = requests.iter().map(Request::build).collect();
                    let want = naive.append(group.clone()).expect("appends");
                    let got = log.append(group).expect("appends");
                    let pairs = got.iter().zip(&want);
                    for (got, want) in pairs {
                        prop_assert_eq!(told(got), told(want));
                    }
                }
            }
        }
        same_answers(&env, &log, &naive, reads)
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
}

type Read = (u64, i64, i64, usize);

/// (sequence, time) of the facts that are wanted, from one sequence on, read on to the end; each once, in order.
fn wanted_facts(log: &Arc<dyn FactLog>, wanted: &Wanted, from: u64) -> Vec<(u64, i64)> {
    let (mut facts, mut next) = (Vec::new(), from);
    while next <= wanted.until {
        let (batches, then) = log.read_of(wanted, next, 3).expect("readable");
        assert!(then > next, "it goes on");
        for batch in batches
            .iter()
            .filter(|b| b.batch.contract == wanted.contract)
        {
            let times = batch.batch.event_times.iter();
            let sequences = batch.first_sequence..;
            facts.extend(sequences.zip(times).filter_map(|(sequence, time)| {
                let within = (next..=wanted.until).contains(&sequence)
                    && (wanted.time_min..=wanted.time_max).contains(time);
                within.then_some((sequence, *time))
            }));
        }
        next = then;
    }
    assert!(facts.is_sorted_by(|a, b| a.0 < b.0), "{facts:?}");
    facts
}

/// Holds reading what is wanted, and what was removed of it, to a reading of everything.
fn same_wanted(
    log: &Arc<dyn FactLog>,
    naive: &Arc<dyn FactLog>,
    wanted: &Wanted,
    from: u64,
) -> Result<(), TestCaseError> {
    let mut want = Vec::new();
    for batch in naive.read(1, usize::MAX).expect("readable") {
        if batch.batch.contract == wanted.contract {
            let times = batch.batch.event_times.iter().copied();
            want.extend((batch.first_sequence..).zip(times));
        }
    }
    let of_contract: BTreeSet<u64> = want.iter().map(|fact| fact.0).collect();
    want.retain(|(sequence, time)| {
        (from..=wanted.until).contains(sequence)
            && (wanted.time_min..=wanted.time_max).contains(time)
    });
    prop_assert_eq!(wanted_facts(log, wanted, from), want.clone());
    prop_assert_eq!(wanted_facts(naive, wanted, from), want);
    // Of other contracts it may tell too; of each fact that was removed it does.
    let removed = |log: &Arc<dyn FactLog>| {
        let removed = log.removed(&wanted.contract, from, wanted.until);
        let mut removed = removed.expect("readable");
        assert!(removed.is_sorted_by(|a, b| a.0 < b.0), "{removed:?}");
        removed.retain(|(sequence, _)| of_contract.contains(sequence));
        removed
    };
    let mut gone = Vec::new();
    for batch in naive.read(1, usize::MAX).expect("readable") {
        let runs = batch.removed.iter();
        let pairs = runs.flat_map(|run| run.sequences.iter().zip(&run.removed_at));
        gone.extend(pairs.map(|(sequence, at)| (*sequence, *at)));
    }
    gone.retain(|(sequence, _)| {
        (from..=wanted.until).contains(sequence) && of_contract.contains(sequence)
    });
    gone.sort_unstable();
    prop_assert_eq!(removed(log), gone.clone());
    prop_assert_eq!(removed(naive), gone);
    Ok(())
}

/// Asks both logs the same.
fn same_answers(
    env: &Env,
    log: &Arc<dyn FactLog>,
    naive: &Arc<dyn FactLog>,
    reads: Vec<Read>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(log.sequences(), naive.sequences());
    for (known_at, from, until, newest) in reads {
        prop_assert_eq!(held(log, known_at), held(naive, known_at));
        let instant = env.clock.now() - until.abs() * 500;
        prop_assert_eq!(log.known_by(instant), naive.known_by(instant));
        for contract in [WITH_ID, WITHOUT_ID] {
            let wanted = Wanted {
                contract: contract.into(),
                time_min: from,
                time_max: if known_at % 2 == 0 { i64::MAX } else { until },
                until: naive.last_sequence().min(known_at),
            };
            same_wanted(log, naive, &wanted, newest as u64)?;
            let from = Position::before(from);
            let until = Position::after(until);
            let scan = Scan {
                from,
                until,
                newest,
                ..scan(contract, known_at)
            };
            let got = log.scan(&scan).expect("scanned");
            prop_assert_eq!(places(&got), places(&naive.scan(&scan).expect("scanned")));
            let newest = Some(newest).filter(|n| *n < 7);
            let lookup = Lookup {
                from,
                until,
                newest,
                ..lookup(contract, (known_at % 3) as u8, known_at)
            };
            let got = log.lookup(&lookup).expect("found");
            prop_assert_eq!(places(&got), places(&naive.lookup(&lookup).expect("found")));
            prop_assert_eq!(log.newest(contract), naive.newest(contract));
            let query = QuarantineQuery {
                resolved: known_at % 2 == 0,
                ids: (known_at % 5 == 0).then(|| (0..known_at / 4).collect()),
                ..QuarantineQuery::waiting(contract.into(), scan.newest)
            };
            prop_assert_eq!(log.quarantined(&query), naive.quarantined(&query));
        }
    }
    Ok(())
}
