"""The archive and a training set read by programs that know nothing of Headwater: pandas, polars, DuckDB and, where Java
and PySpark are there, Spark. Of the archive each counts and sums what each contract's facts say, and all have to agree
with the server. Of the training set each has to give every value as Python works it out of the facts, and the type of
every column.

`outside_readers.py PROGRAM` makes a project, fills and archives it, and checks. The functions below `# Readers` are
examples to copy: each gives (facts, trips, rate), of all facts and of the live ones, from the archive's folder. Those
below `# Readers of training sets` give the columns' types by their names, and the rows.
"""

import base64
import collections
import datetime
import decimal
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

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
    from pyspark.sql.functions import count, lit, sum

    read = spark().read.option("mergeSchema", "true")
    facts = read.option("basePath", archive).parquet(f"{archive}/contract={CONTRACT}")
    removed = read.parquet(f"{archive}/corrections/contract={CONTRACT}")
    live = facts.join(removed, "_sequence", "left_anti")
    sums = [count(lit(1)), sum("avg_daily_trips"), sum("conv_rate")]
    return [tuple(f.agg(*sums).first()) for f in (facts, live)]


def spark():
    """The one session that there is."""
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


# Readers of training sets


def table_with_pandas(path):
    """pyarrow's types keep integers beside nulls, decimals, lists and maps; pandas' own make floats and objects of them.
    A map is a list of pairs."""
    table = pd.read_parquet(path, dtype_backend="pyarrow")
    return table.dtypes.to_dict(), zip(*(table[name].tolist() for name in table))


def table_with_polars(path):
    table = pl.read_parquet(path)
    return table.schema, table.rows()


def table_with_duckdb(path):
    table = duckdb.sql(f"SELECT * FROM '{path}'")
    return dict(zip(table.columns, table.types)), table.fetchall()


def table_with_spark(path):
    """Python gets times of Spark in its own zone, without saying so."""
    table = spark().read.parquet(path)
    return dict(table.dtypes), table.collect()


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


RIDES = """
kind: DataContract
apiVersion: v3.1.0
id: fares
version: 1.0.0
status: active
schema:
  - name: ride
    properties:
      - {name: driver_id, logicalType: integer, required: true}
      - {name: ended, logicalType: timestamp, required: true}
      - {name: km, logicalType: number}
      - {name: fare, logicalType: number, physicalType: "decimal(8,2)"}
      - {name: paid, logicalType: boolean}
      - {name: city, logicalType: string}
      - {name: due, logicalType: date}
      - {name: seal, logicalType: string, physicalType: bytes}
      - {name: stops, logicalType: array, items: {logicalType: string}}
      - {name: spot, logicalType: object, properties: [{name: x, logicalType: integer}, {name: name, logicalType: string}]}
    customProperties:
      - {property: headwater.eventTime, value: ended}
      - {property: headwater.factId, value: [driver_id, ended]}
---
apiVersion: headwater/v1
kind: FeatureView
name: riding
spec:
  entity: driver
  sources: [{contract: ride}]
  features:
    - {name: rides, aggregate: count, windows: [6h]}
    - {name: longest, aggregate: max, of: km, windows: [6h]}
    - {name: earned, aggregate: sum, of: fare, windows: [lifetime]}
    - {name: cities, aggregate: histogram, of: city, windows: [lifetime]}
    - {name: ended, of: ended}
    - {name: paid, of: paid}
    - {name: city, of: city}
    - {name: due, of: due}
    - {name: seal, of: seal}
    - {name: stops, of: stops}
    - {name: spot, of: spot}
---
apiVersion: headwater/v1
kind: Label
name: next_fare
spec: {contract: ride, match: [driver_id], horizon: 2h, value: fare}
"""
# The columns of the training set, and what pandas, polars, DuckDB and Spark call their types.
TYPES = {
    "driver_id": ("int64[pyarrow]", "Int64", "BIGINT", "bigint"),
    "as_of": ("timestamp[us, tz=UTC][pyarrow]", "Datetime(time_unit='us', time_zone='UTC')", "TIMESTAMP WITH TIME ZONE", "timestamp"),
    "weight": ("float[pyarrow]", "Float32", "FLOAT", "float"),
    "riding.rides_6h": ("int64[pyarrow]", "Int64", "BIGINT", "bigint"),
    "riding.longest_6h": ("double[pyarrow]", "Float64", "DOUBLE", "double"),
    "riding.earned_lifetime": ("decimal128(38, 2)[pyarrow]", "Decimal(precision=38, scale=2)", "DECIMAL(38,2)", "decimal(38,2)"),
    "riding.cities_lifetime": ("map<string ('keys'), int64 ('values') ('riding.cities_lifetime')>[pyarrow]", "Map(String, Int64)", "MAP(VARCHAR, BIGINT)", "map<string,bigint>"),
    "riding.ended": ("timestamp[us, tz=UTC][pyarrow]", "Datetime(time_unit='us', time_zone='UTC')", "TIMESTAMP WITH TIME ZONE", "timestamp"),
    "riding.paid": ("bool[pyarrow]", "Boolean", "BOOLEAN", "boolean"),
    "riding.city": ("string[pyarrow]", "String", "VARCHAR", "string"),
    "riding.due": ("date32[day][pyarrow]", "Date", "DATE", "date"),
    "riding.seal": ("binary[pyarrow]", "Binary", "BLOB", "binary"),
    "riding.stops": ("list<item: string>[pyarrow]", "List(String)", "VARCHAR[]", "array<string>"),
    "riding.spot": ("struct<x: int64, name: string>[pyarrow]", "Struct({'x': Int64, 'name': String})", "STRUCT(x BIGINT, \"name\" VARCHAR)", "struct<x:bigint,name:string>"),
    "next_fare": ("decimal128(8, 2)[pyarrow]", "Decimal(precision=8, scale=2)", "DECIMAL(8,2)", "decimal(8,2)"),
}
DAWN = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
# What the latest ride says is a feature of its own.
LATEST = ["ended", "paid", "city", "due", "seal", "stops", "spot"]


def ride(driver, hour):
    """Each column is null now and then."""
    n = driver * 31 + hour
    values = {
        "km": n / 7,
        "fare": decimal.Decimal(n * 37 - 900) / 100,
        "paid": n % 2 == 0,
        "city": ["Delft", "", "Åbo"][n % 3],
        "due": datetime.date(2024, 5, 1 + n % 28),
        "seal": bytes([n % 256, 0, 255]),
        "stops": ["a", None, "b"][: n % 4],
        "spot": {"x": n, "name": None if n % 3 else "here"},
    }
    values = {name: None if (n + place) % 9 == 0 else value for place, (name, value) in enumerate(values.items())}
    return {"driver_id": driver, "ended": DAWN + hour * HOUR, **values}


def to_json(value):
    """A value as facts have it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


def row(rides, driver, as_of):
    """What the training set has to say of a driver, by the column's names in `TYPES`."""
    own = [r for r in rides if r["driver_id"] == driver]
    before = [r for r in own if r["ended"] < as_of]
    recent = [r for r in before if r["ended"] > as_of - 6 * HOUR]
    fares = [r["fare"] for r in before if r["fare"] is not None]
    after = [r["fare"] for r in own if as_of < r["ended"] <= as_of + 2 * HOUR]
    latest = before[-1] if before else dict.fromkeys(LATEST)
    return {
        "driver_id": driver,
        "as_of": as_of,
        "weight": driver / 4,
        "riding.rides_6h": len(recent),
        "riding.longest_6h": max((r["km"] for r in recent if r["km"] is not None), default=None),
        "riding.earned_lifetime": sum(fares) if fares else None,
        "riding.cities_lifetime": dict(collections.Counter(r["city"] for r in before if r["city"] is not None)),
        **{f"riding.{name}": latest[name] for name in LATEST},
        "next_fare": after[0] if after else None,
    }


def make_training_set(binary, folder, rides):
    """Its path, and its rows as they have to be."""
    moments = [(driver, DAWN + minutes * HOUR / 60) for minutes in range(-30, 1500, 90) for driver in range(1, 5)]
    rows = [row(rides, *moment) for moment in moments]
    kinds = {"driver_id": pa.int64(), "as_of": pa.timestamp("us", "UTC"), "weight": pa.float32()}
    spine, out = pathlib.Path(folder, "spine.parquet"), pathlib.Path(folder, "train.parquet")
    pq.write_table(pa.table({name: pa.array([r[name] for r in rows], kind) for name, kind in kinds.items()}), spine)
    features = [a for name in TYPES if "." in name for a in ("--feature", name)]
    command = [binary, "training-set", *features, "--label", "next_fare", "--spine", spine, "--out", out]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return str(out), rows


def plain(value):
    """Any reader's value as Python has it."""
    if value is pd.NA:
        return None
    if isinstance(value, datetime.datetime):
        value = value.to_pydatetime() if isinstance(value, pd.Timestamp) else value
        return value.astimezone(datetime.UTC)
    if isinstance(value, bytearray):
        return bytes(value)
    if hasattr(value, "asDict"):
        return value.asDict()
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    return value


def check_table(name, place, read, path, rows):
    """`place` is the reader's in `TYPES`."""
    types, made = read(path)
    types = {column: str(kind) for column, kind in types.items()}
    assert types == {column: kinds[place] for column, kinds in TYPES.items()}, (name, types)
    for values, wanted in zip(made, rows, strict=True):
        for column, value in zip(wanted, values, strict=True):
            value, want = plain(value), wanted[column]
            # pandas has a map as a list of pairs, and so an empty one.
            same = type(value) is type(want) and value == want or (value == [] and want == {})
            assert same, f"{name}: {column} is {value!r}, not {want!r}, in {wanted}"


def main(binary):
    readers = {"pandas": with_pandas, "polars": with_polars, "DuckDB": with_duckdb}
    tables = {"pandas": table_with_pandas, "polars": table_with_polars, "DuckDB": table_with_duckdb}
    try:
        import pyspark  # noqa: F401

        has_spark = shutil.which("java") is not None
    except ImportError:
        has_spark = False
    if has_spark:
        readers["Spark"], tables["Spark"] = with_spark, table_with_spark
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, FILES | {"headwater.yaml": f"name: rides\n{ARCHIVE}\n", "contracts/fares.yaml": RIDES})
        subprocess.run([binary, "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with serving(binary, folder) as url:
            expected = fill(url)
            rides = [ride(driver, hour) for hour in range(24) for driver in range(1, 4)]
            sent = json.loads(json.dumps(rides, default=to_json))
            status, text = call(f"{url}/v1/facts/ride", sent)
            assert json.loads(text)["accepted"] == len(rides), text
            status, text = call(f"{url}/v1/archive", {})
            state = json.loads(text)
            assert status == 200 and state["complete"], text
            assert state["segments_only_in_archive"] > 1, text
            archive = str(pathlib.Path(folder, ".headwater", "archive"))
            for name, read in readers.items():
                seen = [tuple(row) for row in read(archive)]
                assert seen == expected, f"{name}: {seen}, not {expected}"
        path, rows = make_training_set(binary, folder, rides)
        for place, (name, read) in enumerate(tables.items()):
            check_table(name, place, read, path, rows)
    if has_spark:
        spark().stop()
    untested = "" if has_spark else "; Spark isn't there and wasn't tried"
    print(f"{', '.join(readers)} read {expected[0][0]} facts and {expected[1][0]} live ones, and agree; "
          f"and {len(rows)} rows of a training set, {len(TYPES)} columns each, as Python works them out{untested}")


main(sys.argv[1])
