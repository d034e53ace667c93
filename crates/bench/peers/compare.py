"""What peers make of the tables that `headwater-bench sweep --tables` wrote: how long they take, and whether the values are the same.

Each runs on one thread over tables that it holds in memory. Counted are seconds of the processor, which other work on the
machine changes little, and the median of three runs.
"""

import json
import pathlib
import statistics
import sys
import tempfile
import time

RUNS = 3
COLUMNS = [f"v{c}" for c in range(10)]
WINDOWS = {"24h": "24 HOURS", "7d": "7 DAYS", "30d": "30 DAYS"}
AGGREGATES = {
    "flights": "count(happened)",
    "sum_0": "sum(v0)",
    "avg_0": "avg(v0)",
    "min_0": "min(v0)",
    "max_0": "max(v0)",
    "last_0": "last_value(v0 IGNORE NULLS)",
    "avg_1": "avg(v1)",
    "max_1": "max(v1)",
    "sum_5": "sum(v5)::BIGINT",
    "late": "count(CASE WHEN v0 > 15 THEN 1 END)",
}


def windows_sql():
    cells = [
        f"{{}} OVER w{number} AS {name}_{width}".replace("{}", aggregate.removesuffix("::BIGINT"))
        for name, aggregate in AGGREGATES.items()
        for number, width in enumerate(WINDOWS)
    ]
    # Facts at a moment itself don't count, nor do those a whole width before it.
    edge = "INTERVAL 1 MICROSECOND"
    frames = [
        f"w{number} AS (PARTITION BY key ORDER BY t RANGE BETWEEN INTERVAL {width} - {edge} PRECEDING AND {edge} PRECEDING)"
        for number, width in enumerate(WINDOWS.values())
    ]
    return f"""
        SELECT * FROM (
            SELECT row, {", ".join(cells)}
            FROM (SELECT NULL AS row, 1 AS happened, key, t, v0, v1, v5 FROM facts
                  UNION ALL SELECT row, NULL, key, t, NULL, NULL, NULL FROM spine)
            WINDOW {", ".join(frames)})
        WHERE row IS NOT NULL"""


LATEST_SQL = f"""
    SELECT s.row, {", ".join(f"f.{c} AS latest_{c[1:]}" for c in COLUMNS)}
    FROM spine s ASOF LEFT JOIN facts f ON s.key = f.key AND s.t > f.t"""


def median(run):
    seconds = []
    for _ in range(RUNS):
        start = time.process_time()
        result = run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def duckdb_run(folder, shape):
    import duckdb

    db = duckdb.connect(config={"threads": 1})
    for table in ("facts", "spine"):
        db.execute(f"CREATE TABLE {table} AS SELECT *, make_timestamp(time) AS t FROM '{folder}/{shape}.{table}.parquet'")
    sql = windows_sql() if shape == "windows" else LATEST_SQL
    seconds, _ = median(lambda: db.execute(f"CREATE OR REPLACE TABLE theirs AS {sql}"))
    names = [row[0] for row in db.execute("DESCRIBE theirs").fetchall() if row[0] != "row"]
    same = " AND ".join(f"o.{n} IS NOT DISTINCT FROM t.{n}" for n in names)
    equal = db.execute(
        f"SELECT count(*) FILTER ({same}), count(*) FROM theirs t JOIN '{folder}/{shape}.ours.parquet' o USING (row)"
    ).fetchone()
    return seconds, equal


def polars_run(folder, shape):
    import polars

    facts = polars.read_parquet(f"{folder}/{shape}.facts.parquet").set_sorted("time")
    spine = polars.read_parquet(f"{folder}/{shape}.spine.parquet").set_sorted("time")
    seconds, theirs = median(lambda: spine.join_asof(facts, on="time", by="key", allow_exact_matches=False))
    ours = polars.read_parquet(f"{folder}/{shape}.ours.parquet")
    same = polars.lit(True)
    for column in COLUMNS:
        same = same & ours[f"latest_{column[1:]}"].eq_missing(theirs.sort("row")[column])
    return seconds, (ours.select(same.alias("same"))["same"].sum(), len(ours))


def feast_run(folder, shape):
    import pandas
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64, String

    at = lambda table: pandas.to_datetime(table.pop("time"), unit="us", utc=True)
    facts = pandas.read_parquet(f"{folder}/{shape}.facts.parquet")
    facts["event_timestamp"] = at(facts)
    spine = pandas.read_parquet(f"{folder}/{shape}.spine.parquet")
    # Feast counts facts at the moment itself.
    spine["event_timestamp"] = at(spine) - pandas.Timedelta(1, "us")
    with tempfile.TemporaryDirectory() as repo:
        facts.to_parquet(f"{repo}/facts.parquet")
        pathlib.Path(repo, "feature_store.yaml").write_text(
            "project: bench\nprovider: local\nregistry: registry.db\noffline_store: {type: file}\nonline_store: null\n"
        )
        store = FeatureStore(repo_path=repo)
        entity = Entity(name="entity", join_keys=["key"], value_type=ValueType.STRING)
        types = {c: Float64 if n < 5 else Int64 if n < 8 else String for n, c in enumerate(COLUMNS)}
        view = FeatureView(
            name="facts",
            entities=[entity],
            schema=[Field(name=c, dtype=t) for c, t in types.items()],
            source=FileSource(path=f"{repo}/facts.parquet", timestamp_field="event_timestamp"),
            online=False,
        )
        store.apply([entity, view])
        names = [f"facts:{c}" for c in COLUMNS]
        seconds, theirs = median(lambda: store.get_historical_features(spine, names).to_df())
    ours = pandas.read_parquet(f"{folder}/{shape}.ours.parquet").set_index("row").sort_index()
    # It leaves rows out that come before every fact of their entity: they count as other values.
    same = pandas.Series(ours.index.isin(theirs["row"]), index=ours.index)
    theirs = theirs.set_index("row").reindex(ours.index)
    for column in COLUMNS:
        one, other = ours[f"latest_{column[1:]}"], theirs[column]
        same &= (one == other) | (one.isna() & other.isna())
    return seconds, (int(same.sum()), len(ours))


PEERS = {
    "windows": {"DuckDB RANGE windows": duckdb_run},
    "latest": {"DuckDB ASOF join": duckdb_run, "Polars join_asof": polars_run},
    "small": {"Feast 0.67 file offline store": feast_run, "DuckDB ASOF join": duckdb_run, "Polars join_asof": polars_run},
}


def main():
    folder = pathlib.Path(sys.argv[1])
    print("| shape | who | rows/s of one core | ours is | same values |\n|---|---|---|---|---|")
    for line in (folder / "ours.ndjson").read_text().splitlines():
        ours = json.loads(line)
        rows, own = ours["rows"], statistics.median(ours["seconds"])
        print(f"| {ours['what']} | Headwater | {rows / own:,.0f} | | |", flush=True)
        for name, run in PEERS[ours["shape"]].items():
            try:
                seconds, (same, of) = run(folder, ours["shape"])
                print(f"| | {name} | {rows / seconds:,.0f} | {seconds / own:.2f} × | {same:,} of {of:,} rows |", flush=True)
            except Exception as error:
                print(f"| | {name} | doesn't run here: {type(error).__name__}: {str(error)[:200]} | | |", flush=True)


main()
