"""KServe's own clients against one server; run by ``test_kserve`` in an environment of its own.

Prints a line of JSON with what each call returned.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

model, grpc, http, v1_body, shape = sys.argv[1:]
found = {}


def tensors(binary):
    request_inputs = []
    for name, values in json.loads(v1_body)["inputs"].items():
        one = InferInput(name, json.loads(shape), "FP32")
        one.set_data_from_numpy(np.array(values, np.float32), binary_data=binary)
        request_inputs.append(one)
    return InferRequest(model_name=model, infer_inputs=request_inputs)


def plain(response):
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


async def refusal(call):
    try:
        return repr(await call)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def v1(url):
    client = InferenceRESTClient(RESTConfig(protocol="v1", verbose=False))
    found["v1 live"] = await client.is_server_live(url)
    found["v1 model ready"] = await client.is_model_ready(url, model)
    instances = {"instances": json.loads(v1_body)["rows"]}
    found["v1 infer"] = await client.infer(url, instances, model_name=model)
    found["v1 unknown"] = await refusal(client.is_model_ready(url, "nobody"))
    found["v1 wrong"] = await refusal(client.infer(url, {"instances": []}, model_name=model))
    await client.close()


async def v2(url):
    client = InferenceRESTClient(RESTConfig(protocol="v2", verbose=False))
    found["v2 live"] = await client.is_server_live(url)
    found["v2 ready"] = await client.is_server_ready(url)
    found["v2 model ready"] = await client.is_model_ready(url, model)
    found["v2 unknown"] = await client.is_model_ready(url, "nobody")
    for binary in (False, True):
        answer = await client.infer(url, tensors(binary), model_name=model)
        found[f"v2 infer {'binary' if binary else 'json'}"] = plain(answer)
    await client.close()


async def v2_grpc(address):
    client = InferenceGRPCClient(address)
    found["grpc live"] = await client.is_server_live()
    found["grpc ready"] = await client.is_server_ready()
    found["grpc model ready"] = await client.is_model_ready(model)
    found["grpc infer"] = plain(await client.infer(tensors(binary=True)))
    found["grpc unknown"] = await refusal(client.infer(InferRequest("nobody", [])))
    await client.close()


async def main():
    await v1(f"http://{http}")
    await v2(f"http://{http}")
    await v2_grpc(grpc)


asyncio.run(main())
print(json.dumps(found))
