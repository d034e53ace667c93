//! Queries from outside: whatever the text, it is refused, or planned as one that only reads.

use std::sync::{Arc, LazyLock};

use headwater_batch::sql::Snapshot;
use headwater_batch::sql::fuzz::Guarded;
use headwater_batch::{SpillLimit, SweepOptions};
use headwater_env::Env;
use headwater_facts::MemoryFactLog;

use super::Target;
use super::documents::CATALOG;

/// As much as a query's threads have: plans are walked recursively.
const STACK_BYTES: usize = 64 << 20;

static GUARDED: LazyLock<Guarded> = LazyLock::new(|| {
    let (env, _, _) = Env::simulated(1);
    let guarded = Guarded::new(Snapshot {
        facts: Arc::new(MemoryFactLog::new(env.clone())),
        catalog: Arc::new(CATALOG.clone()),
        known_at: 0,
        as_of: None,
        sweep: SweepOptions {
            memory_bytes_max: 1 << 20,
            spill_folder: "/spill".into(),
            spill_limit: SpillLimit::default(),
        },
        env,
    });
    guarded.expect("a session")
});

pub const QUERIES: Target = Target {
    name: "queries",
    seeds: || {
        [
            "SELECT who, count(*) AS n FROM every WHERE amount > 1.5 GROUP BY who ORDER BY n DESC LIMIT 3",
            "WITH t AS (SELECT * FROM history.every) SELECT a._fact_id FROM t a JOIN t b ON a._removed_at = b._sequence",
            "SELECT * FROM features_as_of('habits', TIMESTAMP '2020-01-01T00:00:00Z')",
            "SELECT field FROM quarantine.every UNION ALL SELECT description FROM about.columns",
            "EXPLAIN SELECT sum(amount) OVER (PARTITION BY who ORDER BY _event_time) FROM every",
            "SHOW TABLES",
            "SELECT value FROM generate_series(1, 10)",
        ]
        .map(|sql| sql.as_bytes().to_vec())
        .to_vec()
    },
    words: &[
        "INSERT INTO every ",
        "DELETE FROM every ",
        "UPDATE every SET ",
        "DROP TABLE every",
        "CREATE TABLE t AS ",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY every TO '/tmp/x'",
        " INTO t ",
        "EXPLAIN ANALYZE ",
        "SET a = 1",
        "PREPARE p AS ",
        "BEGIN",
        "; ",
        "RETURNING *",
        "VALUES (1)",
        "WITH t AS (",
        ") SELECT * FROM t",
        "'/etc/passwd'",
        "read_csv('/etc/passwd')",
        "LATERAL ",
        "UNNEST(",
        "(((((((((((((((((((((((((((((((",
        "NOT NOT NOT NOT ",
        " OR 1 = 1",
        "\"",
        "--",
        "/*",
        "$1",
        "::int",
        "CAST(",
        "INTERVAL '1' ",
    ],
    run: |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let planned = thread.spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime").block_on(GUARDED.takes(text))
            });
            match planned.expect("a thread").join() {
                Ok(taken) => taken,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    },
};
