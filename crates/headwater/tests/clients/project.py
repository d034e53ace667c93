"""A project in a temporary folder and a server over it, for the clients beside this file."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import urllib.error
import urllib.request

FILES = {
    "headwater.yaml": "name: rides\nspec: {grpc_listen: '127.0.0.1:0'}\n",
    "contracts/rides.yaml": """
kind: DataContract
apiVersion: v3.1.0
id: rides
version: 1.0.0
status: active
schema:
  - name: driver_hourly
    properties:
      - {name: driver_id, logicalType: integer, required: true}
      - {name: event_timestamp, logicalType: timestamp, required: true}
      - {name: conv_rate, logicalType: number}
      - {name: avg_daily_trips, logicalType: integer}
      - {name: city, logicalType: string}
      - {name: licensed_at, logicalType: timestamp}
    customProperties:
      - {property: headwater.eventTime, value: event_timestamp}
      - {property: headwater.factId, value: [driver_id, event_timestamp]}
""",
    "features/rides.yaml": """
apiVersion: headwater/v1
kind: Entity
name: driver
spec: {keys: [{name: driver_id, type: integer}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: driver_stats
spec:
  entity: driver
  sources: [{contract: driver_hourly}]
  features:
    - {name: conv_rate, of: conv_rate}
    - {name: trips, of: avg_daily_trips}
    - {name: city, of: city}
    - {name: licensed_at, of: licensed_at}
    - {name: reports, aggregate: count, windows: [lifetime]}
    - {name: reports_odd, expression: reports_lifetime / (reports_lifetime - reports_lifetime)}
---
apiVersion: headwater/v1
kind: FeatureSet
name: driver_activity
spec: {features: [driver_stats.conv_rate, driver_stats.reports_lifetime]}
""",
}


def write_files(folder, files):
    """A project's files, by their paths."""
    for name, text in files.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@contextlib.contextmanager
def serving(binary, folder, grpc=False):
    """The address of a server over a project that is applied; that of its gRPC too, where it is asked for."""
    command = [binary, "serve", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("listening on http://"), line
        url = line.removeprefix("listening on ").strip()
        yield (url, server.stdout.readline().removeprefix("listening for gRPC on ").strip()) if grpc else url
        assert server.poll() is None, "the server ended"
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def served(binary):
    """The address of a server over a fresh project."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, FILES)
        subprocess.run([binary, "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with serving(binary, folder) as url:
            yield url


def call(url, body=None):
    """One call with a JSON body: the status, and the body as text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
