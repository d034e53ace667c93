"""The Open Inference Protocol by clients that others wrote, unchanged, against `headwater serve`: tritonclient over HTTP,
gRPC and gRPC with asyncio, KServe's over both; every type of elements, as JSON, as raw bytes and in gRPC's lists, in
batches; and a table of errors. The two packages can't be imported into one process, so each client is one of its own.

usage: oip.py PROGRAM
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from project import call, serving, write_files

# `sum` has numbers, `pair` answers two numbers a row; `fraud`, from a file of LightGBM's, has a category.
MODELS = {
    "sum": {
        "format": "headwater-linear/1",
        "inputs": ["a", "b", "c"],
        "coefficients": [1, 10, 100],
        "intercepts": [0.5],
    },
    "pair": {
        "format": "headwater-linear/1",
        "link": "softmax",
        "inputs": ["a", {"name": "b", "missing": 0}],
        "coefficients": [[1, 0], [0, 1]],
        "intercepts": [0, 0],
    },
}
SMALL = pathlib.Path(__file__).parents[4] / "crates/models/src/lightgbm/small.txt"
CONTRACT = """
kind: DataContract
apiVersion: v3.1.0
id: visits
version: 1.0.0
status: active
schema:
  - name: visit
    properties:
      - {name: user, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: at}
      - {property: headwater.factId, value: [user, at]}
"""
DEFINITIONS = """
apiVersion: headwater/v1
kind: Entity
name: user
spec: {keys: [{name: user, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: seen
spec:
  entity: user
  sources: [{contract: visit}]
  features: [{name: visits, aggregate: count, windows: [lifetime]}]
---
apiVersion: headwater/v1
kind: FeatureSet
name: inputs
spec:
  features: [seen.visits_lifetime]
  context: [{name: a, type: number}, {name: b, type: number}, {name: c, type: number}, {name: country, type: string}]
"""
CLIENTS = ["oip_triton_http.py", "oip_triton_grpc.py", "oip_kserve.py"]


def model(name, inputs):
    return (
        f"---\napiVersion: headwater/v1\nkind: Model\nname: {name}\nspec:\n  feature_set: inputs\n"
        f"  inputs: {{{', '.join(f'{of}: context.{source}' for of, source in inputs.items())}}}\n"
    )


def project(folder, program):
    models = model("sum", {"a": "a", "b": "b", "c": "c"}) + model("pair", {"a": "a", "b": "b"})
    models += model("fraud", {"amount": "a", "country": "country", "age": "b"}) + model("empty", {"a": "a"})
    write_files(folder, {
        "headwater.yaml": "name: oip\nspec: {grpc_listen: '127.0.0.1:0', limits: {body_bytes_max: 1000000, entities_max: 1000}}\n",
        "contracts/visit.yaml": CONTRACT,
        "features/models.yaml": DEFINITIONS + models,
    })
    subprocess.run([program, "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for name, text in MODELS.items():
        path = pathlib.Path(folder, f"{name}.json")
        path.write_text(json.dumps(text))
        add(program, folder, name, path)
    path = pathlib.Path(folder, "fraud.txt")
    path.write_text(with_small_leaves(SMALL.read_text()))
    add(program, folder, "fraud", path)


def with_small_leaves(text):
    """So that no probability is 0 or 1."""
    leaves = iter(["0.1 0.2 0.4", "-1.5 0.25", "-0.5 0.75"])
    lines = text.splitlines(keepends=True)
    return "".join(f"leaf_value={next(leaves)}\n" if line.startswith("leaf_value=") else line for line in lines)


def add(program, folder, name, file):
    command = [program, "models", "add", name, file, "--alias", "live", "--version", "v1"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main():
    program = sys.argv[1]
    here = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        project(folder, program)
        with serving(program, folder, grpc=True) as (url, grpc):
            for client in CLIENTS:
                command = [sys.executable, here / client, url.removeprefix("http://"), grpc.removeprefix("http://")]
                subprocess.run(command, check=True, timeout=120)
            # What the clients asked became facts.
            for _ in range(100):
                facts = json.loads(call(f"{url}/v1/facts/prediction?limit=1000")[1])["facts"]
                if len(facts) >= 100:
                    break
                time.sleep(0.1)
            assert len(facts) >= 100, len(facts)


if __name__ == "__main__":
    main()
