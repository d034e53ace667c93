"""The archive read by programs that know nothing of Headwater: pandas, polars, DuckDB and, where Java and
PySpark are there, Spark. Each counts and sums what each contract's facts say, and all have to agree with the server.

`outside_readers.py PROGRAM` makes a project, fills and archives it, and checks. The functions below `# Readers` are
examples to copy: each gives (facts, trips, rate), of all facts and of the live ones, from the archive's folder.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import duckdb
import pandas as pd
import polars as pl

from project import FILES, call, serving, write_files

CONTRACT = "driver_hourly"
ARCHIVE = "spec: {grpc_listen: '127.0.0.1:0', ingest: {segment_bytes_max: 3000}, archive: {every: 1h, after: 0s}}"


# Readers


def with_pandas(archive):
    """pyarrow finds the files; columns that older files lack are null."""
    facts = pd.read_parquet(f"{archive}/contract={CONTRACT}", partitioning=None)
    removed = pd.read_parquet(f"{archive}/corrections/contract={CONTRACT}", partitioning=None)
    live = facts[~facts["_sequence"].isin(removed["_sequence"])]
    return [(len(f), int(f["avg_daily_trips"].sum()), float(f["conv_rate"].sum())) for f in (facts, live)]


def with_polars(archive):
    """Lazily: only the columns that are asked for are read."""
    facts = pl.scan_parquet(f"{archive}/contract={CONTRACT}/**/*.parquet", hive_partitioning=True)
    removed = pl.scan_parquet(f"{archive}/corrections/contract={CONTRACT}/*.parquet", hive_partitioning=False)
    live = facts.join(removed, on="_sequence", how="anti")
    sums = [pl.len(), pl.col("avg_daily_trips").sum(), pl.col("conv_rate").sum()]
    return [f.select(sums).collect().row(0) for f in (facts, live)]


def with_duckdb(archive):
    """`hive_partitioning` makes `contract` and `day` columns, and reads only the days asked for."""
    facts = f"read_parquet('{archive}/contract={CONTRACT}/**/*.parquet', hive_partitioning = true, union_by_name = true)"
    removed = f"(SELECT _sequence FROM read_parquet('{archive}/corrections/contract={CONTRACT}/*.parquet'))"
    sums = f"SELECT count(*), sum(avg_daily_trips)::BIGINT, sum(conv_rate) FROM {facts}"
    return [duckdb.sql(q).fetchall()[0] for q in (sums, f"{sums} WHERE _sequence NOT IN {removed}")]


def with_spark(archive):
    """`basePath` makes `contract` and `day` columns; `mergeSchema` reads contracts that have evolved."""
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import count, lit, sum

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        spark.sparkContext.setLogLevel("ERROR")
        read = spark.read.option("mergeSchema", "true")
        facts = read.option("basePath", archive).parquet(f"{archive}/contract={CONTRACT}")
        removed = read.parquet(f"{archive}/corrections/contract={CONTRACT}")
        live = facts.join(removed, "_sequence", "left_anti")
        sums = [count(lit(1)), sum("avg_daily_trips"), sum("conv_rate")]
        return [tuple(f.agg(*sums).first()) for f in (facts, live)]
    finally:
        spark.stop()


# The test


def fact(driver, hour, trips):
    time = f"2024-05-{1 + hour // 24:02}T{hour % 24:02}:00:00Z"
    # Quarters sum up exactly, in any order.
    return {"driver_id": driver, "event_timestamp": time, "avg_daily_trips": trips, "conv_rate": trips % 8 / 4}


def fill(url):
    """Facts of three days, some of them revised and some taken back: what (all, live) come to."""
    facts = [fact(driver, hour, driver * hour) for hour in range(72) for driver in range(1, 8)]
    revised = [fact(f["driver_id"], h, f["avg_daily_trips"] + 1000) for h, f in ((h, facts[h * 7]) for h in range(9))]
    kept = {(f["driver_id"], f["event_timestamp"]): f for f in facts + revised}
    for start in range(0, len(facts), 50):
        status, text = call(f"{url}/v1/facts/{CONTRACT}", facts[start : start + 50])
        assert status == 200 and json.loads(text)["rejected"] == [], text
    status, text = call(f"{url}/v1/facts/{CONTRACT}?revise=true", revised)
    assert json.loads(text)["accepted"] == 9, text
    status, text = call(f"{url}/v1/facts/{CONTRACT}?limit=5000")
    ids = [f["fact_id"] for f in json.loads(text)["facts"] if f["fact"]["driver_id"] == 5][:11]
    status, text = call(f"{url}/v1/facts/{CONTRACT}/retract", {"fact_ids": ids})
    assert json.loads(text)["retracted"] == 11, text
    status, text = call(f"{url}/v1/facts/{CONTRACT}?limit=5000")
    live = [f["fact"] for f in json.loads(text)["facts"]]
    assert len(live) == len(kept) - 11
    return [(len(f), sum(r["avg_daily_trips"] for r in f), sum(r["conv_rate"] for r in f)) for f in (facts + revised, live)]


def main(binary):
    readers = {"pandas": with_pandas, "polars": with_polars, "DuckDB": with_duckdb}
    try:
        import pyspark  # noqa: F401

        has_spark = shutil.which("java") is not None
    except ImportError:
        has_spark = False
    if has_spark:
        readers["Spark"] = with_spark
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, FILES | {"headwater.yaml": f"name: rides\n{ARCHIVE}\n"})
        subprocess.run([binary, "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with serving(binary, folder) as url:
            expected = fill(url)
            status, text = call(f"{url}/v1/archive", {})
            state = json.loads(text)
            assert status == 200 and state["complete"], text
            assert state["segments_only_in_archive"] > 1, text
            archive = str(pathlib.Path(folder, ".headwater", "archive"))
            for name, read in readers.items():
                seen = [tuple(row) for row in read(archive)]
                assert seen == expected, f"{name}: {seen}, not {expected}"
    untested = "" if has_spark else "; Spark isn't there and wasn't tried"
    print(f"{', '.join(readers)} read {expected[0][0]} facts and {expected[1][0]} live ones, and agree{untested}")


main(sys.argv[1])
