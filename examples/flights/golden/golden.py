"""Computes features of the flights example at fixed cursors, with pandas and exact fractions and nothing of Headwater.

    ../scripts/requirements.txt installed, then: python golden.py

Writes expected.ndjson, one line per (entity, cursor):

    {"set": FEATURE SET, "entity": {ENTITY: KEY}, "as_of": T, "values": {FULL NAME: VALUE}}

Floats are written with as many digits as it takes to read the same float again. Sums are exact (Fraction)
and rounded once. Facts at equal times are ordered as their file is. All reads are inclusive: exact windows
of width w at t count facts with t - w < time <= t.
"""

import json
import pathlib
from collections import Counter
from fractions import Fraction
from math import sqrt

import pandas as pd

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data"
HOURS = {"2h": 2, "24h": 24, "7d": 168}


def read(name, time):
    frame = pd.read_parquet(DATA / f"{name}.parquet")
    return frame.rename(columns={time: "t"})


DEPARTURE, ARRIVAL = read("departure", "departed"), read("arrival", "arrived")
WEATHER, SCHEDULE = read("weather", "known"), read("schedule", "published")
PLANE = read("plane", "registered")

CURSORS = [
    "2013-01-01T10:17:00Z",  # exactly the year's first departure
    "2013-01-01T12:17:00Z",  # two hours after it, to the instant
    "2013-01-02T10:17:00Z",  # and a day after it
    "2013-01-08T10:17:00Z",  # and a week
    "2013-01-15T18:00:00Z",
    "2013-02-08T20:30:00Z",  # the February storm
    "2013-02-09T15:00:00Z",
    "2013-03-10T06:59:59.999999Z",  # around the change to daylight saving time
    "2013-03-10T07:00:00Z",
    "2013-04-18T21:00:00Z",
    "2013-05-27T13:37:00Z",
    "2013-06-24T23:00:00Z",
    "2013-07-22T22:00:00Z",
    "2013-08-15T09:30:00Z",
    "2013-09-12T22:15:00Z",
    "2013-10-31T16:00:00Z",
    "2013-11-03T05:59:00Z",  # around the change back
    "2013-11-03T06:30:00Z",
    "2013-12-23T19:00:00Z",
    "2014-01-01T12:00:00Z",  # after the last departure
]


def some(values):
    return [v for v in values if not pd.isna(v)]


def rounded(fraction):
    return None if fraction is None else fraction.numerator / fraction.denominator


def mean(values):
    values = [Fraction(v) for v in some(values)]
    return rounded(sum(values) / len(values)) if values else None


def variance(values):
    values = [Fraction(v) for v in some(values)]
    if not values:
        return None
    n = len(values)
    return rounded((sum(v * v for v in values) * n - sum(values) ** 2) / (n * n))


def whole(value):
    return None if value is None else int(value)


def best(values, choose):
    values = some(values)
    return whole(choose(values)) if values else None


def late(values, unknown):
    """Shares above 15; nulls are not late unless they aren't counted."""
    return mean([1 if v > 15 else 0 for v in (some(values) if not unknown else values)])


class Facts:
    """Facts of one entity up to a cursor."""

    def __init__(self, frame, where, cursor):
        mask = frame.t <= cursor
        for column, value in where.items():
            mask &= frame[column] == value
        self.rows, self.cursor = frame[mask], cursor

    def within(self, width):
        return self.rows[self.rows.t > self.cursor - pd.Timedelta(hours=HOURS[width])]

    def latest(self, column, hours):
        """The newest fact's value, if it is young enough."""
        if self.rows.empty or self.rows.t.iloc[-1] < self.cursor - pd.Timedelta(hours=hours):
            return None
        value = self.rows[column].iloc[-1]
        return None if pd.isna(value) else value

    def last(self, column, hours):
        """The newest value that isn't null, if it is young enough."""
        return Facts.latest(self.but(column), column, hours)

    def but(self, column):
        other = Facts.__new__(Facts)
        other.rows, other.cursor = self.rows[self.rows[column].notna()], self.cursor
        return other


def windows(out, view, name, facts, widths, value):
    for width in widths:
        out[f"{view}.{name}_{width}"] = value(facts.within(width))


def departures(out, view, facts, mean_widths):
    windows(out, view, "mean_delay", facts, mean_widths, lambda r: mean(r.dep_delay))


def minus(a, b):
    return None if a is None or b is None else a - b


def plane(tailnum, cursor):
    out, where = {}, {"tailnum": tailnum}
    left, v = Facts(DEPARTURE, where, cursor), "plane_delays"
    windows(out, v, "departures", left, HOURS, len)
    out[f"{v}.departures_lifetime"] = len(left.rows)
    departures(out, v, left, HOURS)
    windows(out, v, "worst_delay", left, ["24h", "7d"], lambda r: best(r.dep_delay, max))
    spread = variance(left.within("7d").dep_delay)
    out[f"{v}.delay_spread_7d"] = None if spread is None else sqrt(spread)
    windows(out, v, "late_share", left, ["24h", "7d"], lambda r: late(r.dep_delay, False))
    out[f"{v}.last_delay"] = whole(left.last("dep_delay", 8))
    out[f"{v}.last_delays_rows_3"] = [int(d) for d in left.rows.dep_delay.iloc[::-1][:3]]
    out[f"{v}.recent_mean_rows_5"] = mean(left.rows.dep_delay.iloc[-5:])
    out[f"{v}.destinations_7d"] = left.within("7d").dest.nunique()
    week = left.within("7d")
    out[f"{v}.idle_7d"] = None if week.empty else (cursor - week.t.iloc[-1]).total_seconds()
    out[f"{v}.trend"] = minus(out[f"{v}.mean_delay_24h"], out[f"{v}.mean_delay_7d"])
    came, v = Facts(ARRIVAL, where, cursor), "plane_arrivals"
    windows(out, v, "arrivals", came, ["24h", "7d"], len)
    windows(out, v, "mean_delay", came, ["24h", "7d"], lambda r: mean(r.arr_delay))
    windows(out, v, "worst_delay", came, ["24h", "7d"], lambda r: best(r.arr_delay, max))
    out[f"{v}.diversions_7d"] = int(came.within("7d").diverted.sum())
    out[f"{v}.diversions_lifetime"] = int(came.rows.diverted.sum())
    out[f"{v}.last_delay"] = whole(came.last("arr_delay", 24))
    known, v = Facts(PLANE, where, cursor), "plane_register"
    out[f"{v}.built"] = whole(known.latest("year", 1e6))
    out[f"{v}.seats"] = whole(known.latest("seats", 1e6))
    out[f"{v}.manufacturer"] = known.latest("manufacturer", 1e6) or "unknown"
    return out


def origin(code, cursor):
    out, where = {}, {"origin": code}
    left, v = Facts(DEPARTURE, where, cursor), "origin_departures"
    windows(out, v, "departures", left, HOURS, len)
    departures(out, v, left, HOURS)
    windows(out, v, "worst_delay", left, ["2h", "24h"], lambda r: best(r.dep_delay, max))
    windows(out, v, "late_share", left, HOURS, lambda r: late(r.dep_delay, False))
    windows(out, v, "very_late", left, ["2h", "24h"], lambda r: int((r.dep_delay > 60).sum()))
    out[f"{v}.planes_24h"] = left.within("24h").tailnum.nunique()
    out[f"{v}.carriers_2h"] = dict(Counter(left.within("2h").carrier))
    out[f"{v}.trend"] = minus(out[f"{v}.mean_delay_2h"], out[f"{v}.mean_delay_24h"])
    coming, v = Facts(SCHEDULE, where, cursor), "origin_schedule"
    windows(out, v, "published", coming, ["2h", "24h"], len)
    miles = some(coming.within("24h").distance)
    out[f"{v}.miles_24h"] = int(sum(miles)) if miles else None
    weather, v = Facts(WEATHER, where, cursor), "origin_weather"
    for column in ["temp", "wind_speed", "wind_gust", "visib"]:
        out[f"{v}.{column}"] = weather.latest(column, 3)
    for width in ["2h", "24h"]:
        rain = some(weather.within(width).precip)
        out[f"{v}.precip_{width}"] = rounded(sum(map(Fraction, rain))) if rain else None
    for width in ["24h", "7d"]:
        temp = some(weather.within(width).temp)
        out[f"{v}.coldest_{width}"] = min(temp) if temp else None
    return out


def main():
    lines = []
    for text in CURSORS:
        cursor = pd.Timestamp(text)
        for tailnum in ["N14228", "N725MQ", "N711HK", "N0NE"]:
            lines.append(("plane_context", {"plane": tailnum}, text, plane(tailnum, cursor)))
        for code in ["EWR", "JFK", "LGA"]:
            lines.append(("origin_context", {"origin": code}, text, origin(code, cursor)))
    with open(HERE / "expected.ndjson", "w") as out:
        for name, entity, as_of, values in lines:
            out.write(json.dumps({"set": name, "entity": entity, "as_of": as_of, "values": values}) + "\n")
    print(f"{len(lines)} lines, {sum(len(v) for *_, v in lines)} values")


if __name__ == "__main__":
    main()
