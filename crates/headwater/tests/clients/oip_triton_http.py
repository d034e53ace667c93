"""tritonclient over HTTP. usage: oip_triton_http.py HTTP GRPC"""
import gzip
import json
import sys
import urllib.error
import urllib.request
import zlib

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from oip_cases import COUNTRIES, ROWS, check, refused, rows, same, wanted


def tensor(name, datatype, values, binary=True):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def one(client, values, datatype, binary, **more):
    return client.infer("sum", [tensor("input", datatype, values, binary)], **more)


def every_type(client):
    for datatype in ROWS:
        for batch in (1, 2, 30):
            values = rows(datatype, batch)
            for binary in (True, False):
                # Outputs: as the client asks by itself (raw), raw by name, JSON by name.
                for outputs in (None, True, False):
                    asked = outputs is not None and [triton.InferRequestedOutput("value", binary_data=outputs)]
                    answer = one(client, values, datatype, binary, outputs=asked or None, request_id="r1")
                    same(f"{datatype} {batch} {binary} {outputs}", answer.as_numpy("value"), wanted(values))
                    told = answer.get_response()
                    check("the head", [told[n] for n in ("id", "model_name", "model_version")], ["r1", "sum", "v1"])
                    check("the shape", told["outputs"][0]["shape"], [batch, 1])
            # The same as columns, in any order.
            columns = [tensor(n, datatype, np.ascontiguousarray(values[:, i])) for n, i in (("c", 2), ("a", 0), ("b", 1))]
            same(f"{datatype} columns", client.infer("sum", columns).as_numpy("value"), wanted(values))


def texts(client):
    scores = []
    for binary in (True, False):
        count = len(COUNTRIES)
        inputs = [
            tensor("amount", "FP64", np.full((count, 1), 1.5), binary),
            tensor("country", "BYTES", np.array([[c.encode()] for c in COUNTRIES], dtype=object), binary),
            tensor("age", "INT32", np.full((count, 1), 7, dtype=np.int32), binary),
        ]
        answer = client.infer("fraud", inputs)
        scores.append(answer.as_numpy(answer.get_response()["outputs"][0]["name"]))
    same("texts", scores[0], scores[1])
    assert len(set(scores[0].ravel())) > 1, scores
    # Ids of rows, where they are asked for.
    outputs = [triton.InferRequestedOutput("prediction_id"), triton.InferRequestedOutput("value")]
    answer = one(client, rows("FP32", 3), "FP32", True, outputs=outputs)
    check("ids", len(set(answer.as_numpy("prediction_id").ravel())), 3)
    same("beside ids", answer.as_numpy("value"), wanted(rows("FP32", 3)))


def missing_values(client):
    values = np.array([[1.0, np.nan, 1.0]])
    assert np.isnan(one(client, values, "FP64", True).as_numpy("value")).all()
    pair = client.infer("pair", [tensor("x", "FP64", np.array([[0.0, np.nan], [800.0, 0.0]]))])
    same("probabilities", pair.as_numpy("probabilities"), [[0.5, 0.5], [1.0, 0.0]])


def compression(client):
    values = rows("FP64", 500)
    for sent in ("gzip", "deflate", None):
        for received in ("gzip", "deflate", None):
            how = {"request_compression_algorithm": sent, "response_compression_algorithm": received}
            for binary in (True, False):
                answer = one(client, values, "FP64", binary, **how)
                same(f"{sent} {received}", answer.as_numpy("value"), wanted(values))


def told(client):
    check("live", client.is_server_live(), True)
    check("ready", client.is_server_ready(), True)
    server = client.get_server_metadata()
    check("the server", (server["name"], server["extensions"]), ("headwater", ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]))
    check("a model", client.is_model_ready("sum"), True)
    check("its version", client.is_model_ready("sum", "v1"), True)
    check("its alias", client.is_model_ready("sum", "live"), True)
    check("without a version", client.is_model_ready("empty"), False)
    check("unknown", client.is_model_ready("none"), False)
    check("unknown version", client.is_model_ready("sum", "v2"), False)
    metadata = client.get_model_metadata("fraud")
    check("inputs", [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]],
          [("amount", "FP64", [-1, 1]), ("country", "BYTES", [-1, 1]), ("age", "FP64", [-1, 1])])
    config = client.get_model_config("fraud")
    check("a configuration", (config["name"], config["platform"], config["max_batch_size"]), ("fraud", "headwater_lightgbm", 1000))
    check("its inputs", [(i["name"], i["data_type"], i["dims"]) for i in config["input"]],
          [("amount", "TYPE_FP64", [1]), ("country", "TYPE_STRING", [1]), ("age", "TYPE_FP64", [1])])
    check("of a version", client.get_model_config("fraud", "v1"), config)
    check("platform", (metadata["platform"], metadata["versions"]), ("headwater_lightgbm", ["v1"]))
    index = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    check("the index", index, {"sum": "READY", "pair": "READY", "fraud": "READY", "empty": "UNAVAILABLE"})


def statistics(client):
    def counted():
        stats = client.get_inference_statistics("sum", "v1")["model_stats"]
        check("versions", [(s["name"], s["version"]) for s in stats], [("sum", "v1")])
        return stats[0]

    before = counted()
    one(client, rows("FP64", 7), "FP64", True)
    try:
        one(client, np.zeros((1, 2)), "FP64", True)
    except InferenceServerException:
        pass
    after = counted()
    check("rows", after["inference_count"] - before["inference_count"], 7)
    check("requests", after["execution_count"] - before["execution_count"], 1)
    success, fail = (lambda of: of["inference_stats"]["success"]), (lambda of: of["inference_stats"]["fail"]["count"])
    check("succeeded", success(after)["count"] - success(before)["count"], 1)
    check("failed", fail(after) - fail(before), 1)
    assert success(after)["ns"] > success(before)["ns"] and after["last_inference"] >= before["last_inference"] > 0
    assert len(client.get_inference_statistics()["model_stats"]) >= 3


def loading(client):
    client.unload_model("pair")
    check("unloaded", client.is_model_ready("pair"), False)
    refused("unloaded", InferenceServerException, "503", "no version", lambda: client.infer("pair", [tensor("x", "FP64", np.zeros((1, 2)))]))
    client.load_model("pair")
    check("loaded", client.is_model_ready("pair"), True)
    for name, status in (("none", "404"), ("empty", "503")):
        refused(f"loading {name}", InferenceServerException, status, "model", lambda: client.load_model(name))
    refused("a file", InferenceServerException, "400", "models add", lambda: client.load_model("sum", config="{}"))


def mistakes(client):
    values = rows("FP64", 1)
    ask = lambda name="sum", inputs=None, **more: (lambda: client.infer(name, inputs or [tensor("x", "FP64", values)], **more))
    table = [
        ("an unknown model", "404", "none", ask("none")),
        ("an unknown version", "404", "v2", ask(model_version="v2")),
        ("too few columns", "400", "takes 3", ask(inputs=[tensor("x", "FP64", np.zeros((1, 2)))])),
        ("an unknown input", "400", "doesn't take: z", ask(inputs=[tensor(n, "FP64", np.zeros(1)) for n in "abz"])),
        ("a missing input", "400", "missing are: c", ask(inputs=[tensor(n, "FP64", np.zeros(1)) for n in "ab"])),
        ("an input twice", "400", "two of that name", ask(inputs=[tensor("a", "FP64", np.zeros(1))] * 2)),
        ("uneven columns", "400", "shape", ask(inputs=[tensor(n, "FP64", np.zeros(i + 1)) for i, n in enumerate("abc")])),
        ("three dimensions", "400", "3 dimensions", ask(inputs=[tensor("x", "FP64", np.zeros((1, 3, 1)))])),
        ("texts for numbers", "400", "wrong type", ask(inputs=[tensor("x", "BYTES", np.array([[b"1", b"2", b"3"]], dtype=object))])),
        ("an unknown output", "400", "other", ask(outputs=[triton.InferRequestedOutput("other")])),
        ("classes", "400", "classification", ask(outputs=[triton.InferRequestedOutput("value", class_count=2)])),
        ("a sequence", "400", "sequence_id", ask(sequence_id=3, sequence_start=True)),
        ("too many rows", "400", "1001", ask(inputs=[tensor("x", "FP64", np.zeros((1001, 3)))])),
        ("no rows", "400", "no rows", ask(inputs=[tensor("x", "FP64", np.zeros((0, 3)))])),
        ("a deadline beyond all", "400", "deadline", ask(timeout=60_000_000)),
    ]
    for what, status, text, asked in table:
        refused(what, InferenceServerException, status, text, asked)


def plain(url, body, headers=(), path="sum/infer", method="POST"):
    request = urllib.request.Request(f"http://{url}/v2/models/{path}", body, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def by_hand(url):
    """What no client sends, and what goes wrong below them."""
    raw = rows("FP64", 2).tobytes()
    status, body = plain(url, raw, {"Inference-Header-Content-Length": "0"})
    check("raw alone", status, 200)
    same("raw alone", np.frombuffer(body[-16:]), wanted(rows("FP64", 2)))
    status, body = plain(url, json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [[1, None, 2]]}]}).encode())
    check("nulls", (status, json.loads(body)["outputs"][0]["data"]), (200, [None]))
    good = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}).encode()
    bomb = gzip.compress(b" " * 50_000_000)
    for what, status, body, headers in [
        ("no JSON", 400, b"{", {}),
        ("an unknown member", 400, good.replace(b'"inputs"', b'"input"'), {}),
        ("another type", 400, good.replace(b"FP64", b"BF16"), {}),
        ("a float as an integer", 400, good.replace(b"FP64", b"INT8").replace(b"2", b"2.5"), {}),
        ("too large an integer", 400, good.replace(b"FP64", b"UINT8").replace(b"2", b"256"), {}),
        ("a shape that isn't", 400, good.replace(b"[1, 3]", b"[2, 3]"), {}),
        ("an endless shape", 400, good.replace(b"[1, 3]", b"[4611686018427387904, 4]"), {}),
        ("a header that is too long", 400, good, {"Inference-Header-Content-Length": "100000"}),
        ("bytes of nothing", 400, good + b"12345678", {"Inference-Header-Content-Length": str(len(good))}),
        ("raw and odd", 400, raw[:-1], {"Inference-Header-Content-Length": "0"}),
        ("another coding", 415, good, {"Content-Encoding": "br"}),
        ("no gzip", 400, good, {"Content-Encoding": "gzip"}),
        ("a bomb", 413, bomb, {"Content-Encoding": "gzip"}),
    ]:
        seen, text = plain(url, body, headers)
        check(what, seen, status)
        assert list(json.loads(text)) == ["error"] and json.loads(text)["error"], (what, text)
    for coding, packed in (("gzip", gzip.compress(good)), ("deflate", zlib.compress(good))):
        check(coding, plain(url, packed, {"Content-Encoding": coding})[0], 200)
    check("another verb", plain(url, None, method="GET")[0], 405)
    for path in ("sum/infer", "sum/none", "sum/versions/v1/none"):
        status, text = plain(url, None, path=path, method="DELETE")
        assert status in (404, 405) and "error" in json.loads(text), (path, status, text)
    check("no version", json.loads(plain(url, None, path="empty/ready", method="GET")[1]), {"name": "empty", "ready": False})


def main():
    url = sys.argv[1]
    with triton.InferenceServerClient(url) as client:
        for part in (told, every_type, texts, missing_values, compression, statistics, loading, mistakes):
            part(client)
    by_hand(url)
    print("tritonclient over HTTP: passed")


if __name__ == "__main__":
    main()
