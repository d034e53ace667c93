"""Makes the spine of the flights' training set: every scheduled flight, one hour before it is to leave.

    python spine.py SPINE.parquet

The columns: the flight's id, which its label is matched by; the keys of its plane, carrier, origin, destination
and route; what a request would bring itself (the schedule, the distance); and `as_of`. Nothing else of the flight.
"""

import pathlib
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
COLUMNS = ["flight_id", "as_of", "tailnum", "carrier", "origin", "dest", "sched_dep", "sched_arr", "distance"]
BEFORE = pd.Timedelta(hours=1)


def main(out):
    flights = pd.read_parquet(DATA / "schedule.parquet")
    flights["as_of"] = flights.sched_dep - BEFORE
    flights = flights.sort_values(["as_of", "flight_id"], kind="stable")[COLUMNS]
    table = pa.Table.from_pandas(flights, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, out)
    print(f"{len(flights)} flights")


if __name__ == "__main__":
    main(*sys.argv[1:])
