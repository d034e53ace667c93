"""The flights' year from outside: what was read over HTTP while it was replayed equals the training sets that are made
afterwards; what those say equals what DuckDB computes, which shares no code with it; and a model trained on January to June
ranks July to December as well as it should.

usage: flights.py PROGRAM    (with examples/flights/train/requirements.txt installed)
"""

import json
import math
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

FLIGHTS = pathlib.Path(__file__).resolve().parents[4] / "examples" / "flights"
# Flights that are read and made again, so many together: 2,000 cursors of five flights each. Every third says nothing of
# what was known and is exclusive; its rows go along in the training set that DuckDB computes.
PAIRS = 10_000
ENTITIES = 5
WITHOUT_KNOWN_AT = 3
CHECKED_ROWS = 5_000
KEYS = ["tailnum", "carrier", "origin", "dest"]
FLIGHT = ["flight_id", *KEYS]
# Seconds of event time per second: slow enough that reads find facts still coming.
SPEED = 1_600_000
HOUR = 3_600_000_000
DAY = 24 * HOUR
# So many reads are sent, then the replay goes on by this much.
READS = 5
STEP = 20 * HOUR
# Some see what was known at a read before, when the replay had come to so long ago at most.
BACK = 5 * DAY
YEAR_BEGINS = pd.Timestamp("2013-01-01T05:00:00Z").value // 1000
# What an independent computation with features like these reached.
AUC_MIN = {"without_weather": 0.752, "with_weather": 0.758, "shipped": 0.758}


def run(program, *arguments):
    subprocess.run([program, "--project", FLIGHTS, *arguments], check=True, stdout=subprocess.DEVNULL)


class Replay:
    """The demo, which serves while it replays the year and after."""

    def __init__(self, program, data):
        command = [program, "--data", data, "demo", "flights", "--no-predict", "--example", FLIGHTS, "--listen", "127.0.0.1:0", "--speed", str(SPEED)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url, self.over = None, threading.Event()
        for line in self.process.stdout:
            if line.startswith("Listening on "):
                self.url = line.split()[-1].rstrip(".")
                break
        assert self.url, "the demo doesn't listen"
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        for line in self.process.stdout:
            if line.startswith("Serving on "):
                self.over.set()

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def front(self):
        """The event time that the replay has reached."""
        newest = {"features": ["origin_weather.temp"], "entities": [{"origin": "EWR"}], "as_of": "2014-01-02T00:00:00Z"}
        time = self.ask("/v1/features", newest)["rows"][0]["event_times"][0]
        return time and pd.Timestamp(time).value // 1000

    def stop(self):
        self.over.wait(120)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0


class Pairs:
    """Features of random flights at random cursors: rows for a spine, and what was read."""

    def __init__(self):
        self.rows, self.values = [], []

    def add(self, reply, flights, **cursor):
        self.names = reply["names"]
        self.rows += [flight | cursor for flight in flights]
        self.values += [row["values"] for row in reply["rows"]]

    def assert_made(self, made):
        """Holds a training set of these rows to what was read."""
        for place, name in enumerate(self.names):
            for value, read, row in zip(made.column(name).to_pylist(), self.values, self.rows, strict=True):
                assert same(value, read[place]), (name, row, value, read[place])


def read_while_replayed(replay, flights):
    """Reads of random flights at random cursors, those that say what was known and those that don't; and how many were
    answered while facts came in. A read that doesn't say it sees only what comes strictly before the front: all of that has come,
    for a replay keeps the order, so that whatever comes later changes nothing of it."""
    choose = random.Random(20130101)
    known, unsaid = Pairs(), Pairs()
    seen, reads, during, last = [], 0, 0, 0
    while reads * ENTITIES < PAIRS:
        front = replay.front()
        if front is None or (front < last + STEP and not replay.over.is_set()):
            time.sleep(0.02)
            continue
        last = front
        for _ in range(READS):
            some = choose.sample(flights, ENTITIES)
            keys = [{key: flight[key] for key in KEYS} for flight in some]
            says = reads % WITHOUT_KNOWN_AT != 0
            as_of = choose.randrange(max(YEAR_BEGINS, front - 10 * DAY), front + (HOUR if says else 1))
            request = {"feature_set": "flight_context", "as_of": as_of, "entities": keys, "inclusive": says}
            recent = [sequence for at, sequence in seen if at > front - BACK]
            if says and recent and choose.random() < 0.3:
                request["known_at"] = choose.choice(recent)
            reply = replay.ask("/v1/features", request)
            assert request.get("known_at", reply["sequence"]) == reply["sequence"]
            seen.append((front, reply["sequence"]))
            if says:
                known.add(reply, some, as_of=as_of, known_at=int(reply["sequence"]))
            else:
                unsaid.add(reply, some, as_of=as_of)
            reads += 1
            during += 0 if replay.over.is_set() else ENTITIES
    assert during > PAIRS // 2, f"only {during} of {PAIRS} reads while facts came in"
    return known, unsaid, during


def spine(path, rows):
    columns = {key: pa.array([row[key] for row in rows], pa.string()) for key in FLIGHT}
    columns["as_of"] = pa.array([row["as_of"] for row in rows], pa.timestamp("us", "UTC"))
    if "known_at" in rows[0]:
        columns["known_at"] = pa.array([row["known_at"] for row in rows], pa.int64())
    pq.write_table(pa.table(columns), path)


def table(path):
    with pa.ipc.open_stream(path) as stream:
        return stream.read_all()


def plain(value):
    """As JSON has it: maps as objects."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    return value


def same(made, read):
    made, read = plain(made), plain(read)
    # An empty map is an empty list of pairs.
    return made == read and (type(made) is type(read) or isinstance(made, float)) or (made == [] and read == {})


def online_is_offline(program, folder, data):
    """Of the reads that say what was known; gives the others."""
    schedule = pd.read_parquet(FLIGHTS / "data" / "schedule.parquet", columns=FLIGHT)
    flights = schedule.dropna().to_dict("records")
    replay = Replay(program, data)
    known, unsaid, during = read_while_replayed(replay, flights)
    replay.stop()
    spine(folder / "pairs.parquet", known.rows)
    run(program, "--data", data, "training-set", "--set", "flight_context", "--inclusive",
        "--spine", folder / "pairs.parquet", "--out", folder / "pairs.arrow")
    known.assert_made(table(folder / "pairs.arrow"))
    cursors = {(row["as_of"], row["known_at"]) for row in known.rows}
    print(f"{len(known.rows)} flights at {len(cursors)} cursors: {len(known.names)} features each, bit for bit as in the training set; "
          f"with {len(unsaid.rows)} more, {during} read while facts came in")
    return unsaid


# SQL of DuckDB over the facts `f` of a row's entity that come before it, in a window that the row's width gives.
COUNT = "count(f.t)"
LATE = "avg(CASE WHEN f.{0} > 15 THEN 1.0::DOUBLE WHEN f.{0} <= 15 THEN 0.0::DOUBLE END)"
# Feature: (contract, its time, keys, hours or none for all time, SQL, ulps that it may be off).
CHECKED = {
    "plane_delays.departures_2h": ("departure", "departed", ["tailnum"], 2, COUNT, 0),
    "plane_delays.mean_delay_7d": ("departure", "departed", ["tailnum"], 168, "avg(f.dep_delay)", 0),
    "plane_delays.worst_delay_24h": ("departure", "departed", ["tailnum"], 24, "max(f.dep_delay)", 0),
    "plane_delays.delay_spread_7d": ("departure", "departed", ["tailnum"], 168, "stddev_pop(f.dep_delay)", 64),
    "plane_delays.destinations_7d": ("departure", "departed", ["tailnum"], 168, "count(DISTINCT f.dest)", 0),
    "plane_delays.last_delays_rows_3": ("departure", "departed", ["tailnum"], None, "coalesce(list(f.dep_delay ORDER BY f.t DESC, f.n DESC) FILTER (f.t IS NOT NULL), [])[:3]", 0),
    "plane_delays.idle_7d": ("departure", "departed", ["tailnum"], 168, "(epoch_us(any_value(r.as_of)) - epoch_us(max(f.t))) / 1e6", 0),
    "plane_delays.last_delay": ("departure", "departed", ["tailnum"], 9, "last(f.dep_delay ORDER BY f.t, f.n) FILTER (f.t >= r.as_of - INTERVAL 8 HOUR)", 0),
    "plane_arrivals.diversions_7d": ("arrival", "arrived", ["tailnum"], 168, "count(*) FILTER (f.diverted)", 0),
    "plane_register.seats": ("plane", "registered", ["tailnum"], None, "last(f.seats ORDER BY f.t, f.n)", 0),
    "carrier_delays.mean_delay_2h": ("departure", "departed", ["carrier", "origin"], 2, "avg(f.dep_delay)", 0),
    "carrier_delays.late_share_7d": ("departure", "departed", ["carrier", "origin"], 168, LATE.format("dep_delay"), 0),
    "carrier_delays.delay_variance_7d": ("departure", "departed", ["carrier", "origin"], 168, "var_pop(f.dep_delay)", 64),
    "origin_departures.departures_7d": ("departure", "departed", ["origin"], 168, COUNT, 0),
    "origin_departures.very_late_24h": ("departure", "departed", ["origin"], 24, "count(*) FILTER (f.dep_delay > 60)", 0),
    "origin_departures.planes_24h": ("departure", "departed", ["origin"], 24, "count(DISTINCT f.tailnum)", 0),
    "origin_schedule.miles_24h": ("schedule", "published", ["origin"], 24, "sum(f.distance)", 0),
    "origin_weather.precip_24h": ("weather", "known", ["origin"], 24, "fsum(f.precip)", 4),
    "origin_weather.coldest_7d": ("weather", "known", ["origin"], 168, "min(f.temp)", 0),
    "destination_arrivals.late_share_24h": ("arrival", "arrived", ["dest"], 24, LATE.format("arr_delay"), 0),
    "route_delays.mean_air_time_7d": ("arrival", "arrived", ["origin", "dest"], 168, "avg(f.air_time)", 0),
}


def ulps(a, b):
    if a is None or b is None or a == b:
        return 0 if a == b else math.inf
    return abs(a - b) / math.ulp(max(abs(a), abs(b)))


def computed(contract, t, keys, hours, sql):
    """A feature of every row as DuckDB computes it. Days narrow the join; the window itself is compared to the instant."""
    same_keys = " AND ".join(f"f.{key} = r.{key}" for key in keys)
    facts = f"(SELECT *, {t} AS t, row_number() OVER () AS n, {t}::DATE AS day FROM '{FLIGHTS}/data/{contract}.parquet')"
    if hours is None:
        rows, near = "rows", "true"
    else:
        rows = f"(SELECT *, unnest(generate_series(as_of - INTERVAL {hours} HOUR, as_of + INTERVAL 1 DAY, INTERVAL 1 DAY))::DATE AS day FROM rows)"
        near = f"f.day = r.day AND f.t > r.as_of - INTERVAL {hours} HOUR"
    query = f"SELECT r.id, {sql} FROM {rows} r LEFT JOIN {facts} f ON {same_keys} AND {near} AND f.t < r.as_of GROUP BY r.id ORDER BY r.id"
    return [value for _, value in duckdb.sql(query).fetchall()]


def offline_is_duckdb(program, folder, data, unsaid):
    """Twenty-one features and the label of random flights, an hour before each, and of the reads that didn't say what was known."""
    schedule = pd.read_parquet(folder / "spine.parquet", columns=[*FLIGHT, "as_of"]).sample(CHECKED_ROWS, random_state=1)
    schedule["as_of"] = schedule.as_of.astype("datetime64[us, UTC]").astype("int64")
    rows = unsaid.rows + pa.Table.from_pandas(schedule, preserve_index=False).to_pylist()
    spine(folder / "some.parquet", rows)
    run(program, "--data", data, "training-set", "--set", "flight_context", "--label", "arrives_late",
        "--spine", folder / "some.parquet", "--out", folder / "some.arrow")
    made = table(folder / "some.arrow")
    unsaid.assert_made(made.slice(0, len(unsaid.rows)))
    print(f"{len(unsaid.rows)} flights read without known_at: bit for bit as in the training set")
    duckdb.sql("SET TimeZone = 'UTC'")
    given = made.append_column("id", pa.array(range(made.num_rows)))
    duckdb.register("given", given)
    duckdb.sql("CREATE TABLE rows AS SELECT id, flight_id, tailnum, carrier, origin, dest, as_of FROM given")
    worst = 0
    for feature, (contract, t, keys, hours, sql, ulps_max) in CHECKED.items():
        theirs = computed(contract, t, keys, hours, sql)
        ours = made.column(feature).to_pylist()
        assert any(value for value in ours), f"{feature} says nothing"
        for row, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            off = ulps(our, their) if ulps_max else 0 if our == their else math.inf
            worst = max(worst, off)
            assert off <= ulps_max, (feature, rows[row], our, their)
    label = f"""SELECT r.id, first(a.arr_delay > 15) FROM rows r LEFT JOIN '{FLIGHTS}/data/arrival.parquet' a
        ON a.flight_id = r.flight_id AND a.arrived > r.as_of AND a.arrived <= r.as_of + INTERVAL 2 DAY GROUP BY r.id ORDER BY r.id"""
    assert made.column("arrives_late").to_pylist() == [late for _, late in duckdb.sql(label).fetchall()]
    print(f"{len(CHECKED)} features and the label of {len(rows)} flights as DuckDB computes them; at most {worst:.0f} ulps off, where not exact")


def model(program, folder, data):
    run(program, "--data", data, "training-set", "--set", "flight_delay", "--label", "arrives_late",
        "--spine", folder / "spine.parquet", "--out", folder / "train.parquet")
    said = subprocess.run([sys.executable, FLIGHTS / "train" / "train.py", folder / "train.parquet"], check=True, capture_output=True, text=True)
    auc = json.loads(said.stdout)["auc"]
    print("AUC of July to December: " + ", ".join(f"{name} {value:.4f}" for name, value in auc.items()))
    for name, least in AUC_MIN.items():
        assert auc[name] >= least, (name, auc[name], least)


def timed(step, *arguments):
    start = time.monotonic()
    made = step(*arguments)
    print(f"  {step.__name__}: {time.monotonic() - start:.0f} s", flush=True)
    return made


def main(program):
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        data = folder / "data"
        subprocess.run([sys.executable, FLIGHTS / "train" / "spine.py", folder / "spine.parquet"], check=True)
        unsaid = timed(online_is_offline, program, folder, data)
        timed(offline_is_duckdb, program, folder, data, unsaid)
        timed(model, program, folder, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
