"""tritonclient over gRPC, waiting and with asyncio. usage: oip_triton_grpc.py HTTP GRPC"""
import asyncio
import queue
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from oip_cases import COUNTRIES, ROWS, check, refused, rows, same, wanted

LISTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}


def tensor(name, datatype, values):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def countries():
    count = len(COUNTRIES)
    return [
        tensor("amount", "FP64", np.full((count, 1), 1.5)),
        tensor("country", "BYTES", np.array([[c.encode()] for c in COUNTRIES], dtype=object)),
        tensor("age", "INT32", np.full((count, 1), 7, dtype=np.int32)),
    ]


def raw(client):
    """As the client sends tensors."""
    for datatype in ROWS:
        for batch in (1, 2, 30):
            values = rows(datatype, batch)
            answer = client.infer("sum", [tensor("x", datatype, values)], request_id="r1")
            same(f"{datatype} {batch}", answer.as_numpy("value"), wanted(values))
            told = answer.get_response()
            check("the head", (told.id, told.model_name, told.model_version), ("r1", "sum", "v1"))
            columns = [tensor(n, datatype, np.ascontiguousarray(values[:, i])) for n, i in (("c", 2), ("a", 0), ("b", 1))]
            same(f"{datatype} columns", client.infer("sum", columns).as_numpy("value"), wanted(values))
    answer = client.infer("fraud", countries())
    scores = answer.as_numpy(answer.get_response().outputs[0].name)
    assert len(set(scores.ravel())) > 1, scores
    ids = client.infer("sum", [tensor("x", "FP64", rows("FP64", 3))], outputs=[triton.InferRequestedOutput("prediction_id")])
    check("ids", len(set(ids.as_numpy("prediction_id").ravel())), 3)
    for algorithm in ("gzip", "deflate"):
        values = rows("FP64", 30)
        packed = client.infer("sum", [tensor("x", "FP64", values)], compression_algorithm=algorithm)
        same(algorithm, packed.as_numpy("value"), wanted(values))


def streamed(client):
    """Requests of one stream, answered in their order; one that is wrong is told of in its place."""
    heard = queue.Queue()
    client.start_stream(callback=lambda result, error: heard.put((result, error)))
    batches = [rows(datatype, batch) for datatype in ROWS for batch in (1, 30)] * 5
    kinds = [datatype for datatype in ROWS for _ in (1, 30)] * 5
    for place, (kind, values) in enumerate(zip(kinds, batches)):
        client.async_stream_infer("sum", [tensor("x", kind, values)], request_id=str(place))
        if place == 7:
            client.async_stream_infer("none", [tensor("x", kind, values)], request_id="wrong")
    client.async_stream_infer("sum", [tensor("x", "FP64", rows("FP64", 1))], enable_empty_final_response=True)
    for place, values in enumerate(batches):
        result, error = heard.get(timeout=60)
        assert error is None, error
        check("the order", result.get_response().id, str(place))
        assert "triton_final_response" not in result.get_response().parameters
        same("streamed", result.as_numpy("value"), wanted(values))
        if place == 7:
            result, error = heard.get(timeout=60)
            assert result is None and "none" in str(error), error
    last = heard.get(timeout=60)[0].get_response()
    assert last.parameters["triton_final_response"].bool_param
    client.stop_stream()
    # What was asked before the end is answered after it.
    client.start_stream(callback=lambda result, error: heard.put((result, error)))
    for _ in range(100):
        client.async_stream_infer("sum", [tensor("x", "FP64", rows("FP64", 30))])
    client.stop_stream()
    for _ in range(100):
        same("after the end", heard.get(timeout=1)[0].as_numpy("value"), wanted(rows("FP64", 30)))
    # A message that is no request ends the stream.
    client.start_stream(callback=lambda result, error: heard.put((result, error)))
    client.async_stream_infer("sum", [tensor("x", "FP64", np.zeros((50_000, 3)))])
    result, error = heard.get(timeout=60)
    assert result is None and "can't be read" in str(error), error
    client.stop_stream()


def message(datatype, values, **more):
    request = service_pb2.ModelInferRequest(model_name="sum", **more)
    given = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
    # FP16 has no list: it is refused in another's.
    getattr(given.contents, LISTS.get(datatype, "fp32_contents")).extend(values.ravel().tolist())
    return request


def lists(url):
    """In gRPC's typed lists, which tritonclient itself never fills."""
    with grpc.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for datatype in ROWS:
            values = rows(datatype, 2)
            if datatype == "FP16":
                wrong(stub, message(datatype, values), grpc.StatusCode.INVALID_ARGUMENT, "raw bytes")
                continue
            answer = stub.ModelInfer(message(datatype, values))
            check("no raw bytes", len(answer.raw_output_contents), 0)
            same(datatype, answer.outputs[0].contents.fp64_contents, wanted(values))
        both = message("FP64", rows("FP64", 1))
        both.raw_input_contents.append(rows("FP64", 1).tobytes())
        wrong(stub, both, grpc.StatusCode.INVALID_ARGUMENT, "beside")
        other = message("FP64", rows("FP64", 1))
        other.inputs[0].contents.int_contents.append(1)
        wrong(stub, other, grpc.StatusCode.INVALID_ARGUMENT, "another type")
        large = message("UINT8", np.array([[1, 2, 256]], dtype=np.uint32))
        wrong(stub, large, grpc.StatusCode.INVALID_ARGUMENT, "256")
        many = service_pb2.ModelInferRequest(model_name="sum", raw_input_contents=[b""])
        wrong(stub, many, grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents")
        wrong(stub, service_pb2.ModelInferRequest(model_name="sum"), grpc.StatusCode.INVALID_ARGUMENT, "no inputs")


def wrong(stub, request, code, text):
    try:
        stub.ModelInfer(request)
    except grpc.RpcError as error:
        assert error.code() == code and text in error.details(), (error.code(), error.details())
        return
    raise AssertionError(f"{text}: it was answered")


def told(client):
    check("live", client.is_server_live(), True)
    check("ready", client.is_server_ready(), True)
    check("the server", client.get_server_metadata().name, "headwater")
    check("a model", (client.is_model_ready("sum"), client.is_model_ready("sum", "v1"), client.is_model_ready("empty")), (True, True, False))
    metadata = client.get_model_metadata("fraud")
    check("inputs", [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs],
          [("amount", "FP64", [-1, 1]), ("country", "BYTES", [-1, 1]), ("age", "FP64", [-1, 1])])
    config = client.get_model_config("fraud").config
    check("a configuration", (config.name, config.platform, config.backend, config.max_batch_size),
          ("fraud", "headwater_lightgbm", "headwater", 1000))
    tensors = [(t.name, model_config_pb2.DataType.Name(t.data_type), list(t.dims)) for t in config.input]
    check("its inputs", tensors, [("amount", "TYPE_FP64", [1]), ("country", "TYPE_STRING", [1]), ("age", "TYPE_FP64", [1])])
    check("its outputs", [(o.name, o.data_type, list(o.dims)) for o in client.get_model_config("pair", "v1").config.output],
          [("probabilities", model_config_pb2.TYPE_FP64, [2])])
    index = {entry.name: entry.state for entry in client.get_model_repository_index().models}
    check("the index", index, {"sum": "READY", "pair": "READY", "fraud": "READY", "empty": "UNAVAILABLE"})
    stats = client.get_inference_statistics("sum", "v1").model_stats
    check("versions", [(s.name, s.version) for s in stats], [("sum", "v1")])
    assert stats[0].inference_stats.success.count > 0 and stats[0].inference_count >= stats[0].execution_count > 0
    client.unload_model("pair")
    check("unloaded", client.is_model_ready("pair"), False)
    client.load_model("pair")
    check("loaded", client.is_model_ready("pair"), True)


def mistakes(client):
    values = rows("FP64", 1)
    ask = lambda name="sum", inputs=None, **more: (lambda: client.infer(name, inputs or [tensor("x", "FP64", values)], **more))
    table = [
        ("an unknown model", "NOT_FOUND", "none", ask("none")),
        ("an unknown model's state", "NOT_FOUND", "none", lambda: client.is_model_ready("none")),
        ("an unknown version", "NOT_FOUND", "v2", ask(model_version="v2")),
        ("no version", "UNAVAILABLE", "live", ask("empty")),
        ("an unknown configuration", "NOT_FOUND", "none", lambda: client.get_model_config("none")),
        ("too few columns", "INVALID_ARGUMENT", "takes 3", ask(inputs=[tensor("x", "FP64", np.zeros((1, 2)))])),
        ("an unknown output", "INVALID_ARGUMENT", "other", ask(outputs=[triton.InferRequestedOutput("other")])),
        ("classes", "INVALID_ARGUMENT", "classification", ask(outputs=[triton.InferRequestedOutput("value", class_count=2)])),
        ("a sequence", "INVALID_ARGUMENT", "sequence_id", ask(sequence_id=3)),
        ("a deadline beyond all", "INVALID_ARGUMENT", "deadline", ask(timeout=60_000_000)),
        ("too large", "OUT_OF_RANGE", "", ask(inputs=[tensor("x", "FP64", np.zeros((50_000, 3)))])),
        ("a file", "INVALID_ARGUMENT", "models add", lambda: client.load_model("sum", config="{}")),
    ]
    for what, status, text, asked in table:
        refused(what, InferenceServerException, status, text, asked)


async def with_asyncio(url):
    async with aio.InferenceServerClient(url) as client:
        check("live", (await client.is_server_live(), await client.is_model_ready("sum")), (True, True))
        batches = [rows(datatype, batch) for datatype in ROWS for batch in (1, 30)]
        kinds = [datatype for datatype in ROWS for _ in (1, 30)]
        asked = [client.infer("sum", [tensor("x", kind, values)]) for kind, values in zip(kinds, batches)]
        for answer, values in zip(await asyncio.gather(*asked), batches):
            same("with asyncio", answer.as_numpy("value"), wanted(values))
        async def requests():
            for kind, values in zip(kinds, batches):
                yield {"model_name": "sum", "inputs": [tensor("x", kind, values)]}
        left = list(batches)
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            same("a stream with asyncio", result.as_numpy("value"), wanted(left.pop(0)))
        check("all were answered", left, [])
        try:
            await client.infer("none", [tensor("x", "FP64", rows("FP64", 1))])
        except InferenceServerException as error:
            assert "NOT_FOUND" in str(error.status()), error
        else:
            raise AssertionError("an unknown model was answered")


def main():
    url = sys.argv[2]
    with triton.InferenceServerClient(url) as client:
        for part in (raw, streamed, told, mistakes):
            part(client)
    lists(url)
    asyncio.run(with_asyncio(url))
    print("tritonclient over gRPC: passed")


if __name__ == "__main__":
    main()
