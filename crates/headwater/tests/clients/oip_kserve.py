"""KServe's inference clients, over HTTP and gRPC. usage: oip_kserve.py HTTP GRPC"""
import asyncio
import logging
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

from oip_cases import COUNTRIES, ROWS, check, rows, same, wanted


def request(model, inputs):
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="r1")


def tensor(name, datatype, values, binary):
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def countries(binary):
    count = len(COUNTRIES)
    return [
        tensor("amount", "FP64", np.full((count, 1), 1.5), binary),
        tensor("country", "BYTES", np.array([[c.encode()] for c in COUNTRIES], dtype=object), binary),
        tensor("age", "INT32", np.full((count, 1), 7, dtype=np.int32), binary),
    ]


async def ask_all(infer, binaries, without, version):
    for datatype in ROWS:
        for binary in binaries:
            if not binary and datatype in without:
                continue
            for batch in (1, 2, 30):
                values = rows(datatype, batch)
                answer = await infer("sum", [tensor("x", datatype, values, binary)])
                same(f"{datatype} {batch} {binary}", answer.outputs[0].as_numpy(), wanted(values))
                check("the head", (answer.id, answer.model_name, answer.model_version), ("r1", "sum", version))
    scores = [(await infer("fraud", countries(binary))).outputs[0].as_numpy() for binary in binaries]
    assert len(set(scores[0].ravel())) > 1, scores
    for score in scores:
        same("texts", score, scores[0])


async def rest(url):
    base = f"http://{url}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        check("live", await client.is_server_live(base), True)
        check("ready", await client.is_server_ready(base), True)
        for name, ready in (("sum", True), ("empty", False), ("none", False)):
            check(name, await client.is_model_ready(base, name), ready)

        async def infer(model, inputs):
            return await client.infer(base, request(model, inputs), model_name=model)

        # KServe has no JSON of FP16, and its client drops the version from what it read over HTTP.
        await ask_all(infer, (True, False), {"FP16"}, None)
        for model, columns, status, text in [("none", 3, 404, "none"), ("sum", 2, 400, "takes 3"), ("empty", 1, 503, "live")]:
            try:
                await infer(model, [tensor("x", "FP64", np.zeros((1, columns)), False)])
            except httpx.HTTPStatusError as error:
                check(model, error.response.status_code, status)
                assert text in str(error), error
            else:
                raise AssertionError(f"{model} was answered")


async def over_grpc(url):
    async with InferenceGRPCClient(url, retries=0) as client:
        check("live", await client.is_server_live(), True)
        check("ready", await client.is_server_ready(), True)
        check("a model", (await client.is_model_ready("sum"), await client.is_model_ready("empty")), (True, False))

        async def infer(model, inputs):
            return await client.infer(request(model, inputs))

        await ask_all(infer, (True, False), {"FP16"}, "v1")
        for model, columns, code in [("none", 3, "NOT_FOUND"), ("sum", 2, "INVALID_ARGUMENT"), ("empty", 1, "UNAVAILABLE")]:
            try:
                await infer(model, [tensor("x", "FP64", np.zeros((1, columns)), True)])
            except grpc.RpcError as error:
                check(model, error.code().name, code)
            else:
                raise AssertionError(f"{model} was answered")


def main():
    # It writes each refusal down.
    logging.disable(logging.CRITICAL)
    asyncio.run(rest(sys.argv[1]))
    asyncio.run(over_grpc(sys.argv[2]))
    print("kserve over HTTP and gRPC: passed")


if __name__ == "__main__":
    main()
