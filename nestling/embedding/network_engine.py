"""From many images to the embeddings of a network of torch's: one that the Graph has no place for, or a part of one.

OpenVINO, where it is installed, runs these networks two to four times as fast as torch, but wants about a second to be ready: a
handful of images goes through torch. The choice depends on how many images there are, never on a clock, and every image goes
through alone: so the same image gives the same bytes at any place of any run.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nestling import extras
from nestling.embedding.engine import Engine, Image, Vector
from nestling.formats.onnx.openvino import import_openvino, openvino_core
from nestling.processor import cores as available

FEW = 16  # images that torch has done before OpenVINO would be ready (see benchmarks/features.py)
SAME = 1e-4  # how far OpenVINO's embedding may be from torch's, relative to its largest number


def engine_of(network: nn.Module, shape: tuple[int, int, int], count: int) -> Engine:
    """The engine for `count` images of a network that takes uint8 [N, H, W, C] of `shape` (H, W, C) and gives float32 [N, D].

    count: all images of the task, whether or not a cache knows some of them: the choice must not depend on what ran before.
    The network is copied: what is learned later doesn't change the engine. Where OpenVINO does not take the network, torch does the
    work and a warning says so.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if count <= FEW or not extras.has("openvino"):
        return torch_engine(network, shape)
    try:
        return openvino_engine(network, shape)
    except Exception as error:  # a missing package, an operation that it doesn't know, a machine that it doesn't run on
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"OpenVINO can't run this network, so torch does, more slowly ({type(error).__name__}: {reason})", stacklevel=2
        )
        return torch_engine(network, shape)


def torch_engine(network: nn.Module, shape: tuple[int, int, int]) -> Engine:
    """torch itself, one image at a time, channels last: on few cores the quickest of its ways. Nothing to prepare."""
    digest = _digest(network)
    network = network.to(memory_format=torch.channels_last)

    def embed_one(image: Image) -> Vector:
        with torch.inference_mode():
            vector: Vector = network(torch.from_numpy(np.ascontiguousarray(image)[None]))[0].numpy()
        return vector

    width = len(embed_one(np.zeros(shape, np.uint8)))
    return Engine(f"torch-{torch.__version__} f32 {digest}", width, lambda images: map(embed_one, images))


def openvino_engine(network: nn.Module, shape: tuple[int, int, int]) -> Engine:
    """OpenVINO, one stream of one thread a core. Its embedding of one image of noise must be torch's, or RuntimeError is raised.

    One thread a stream keeps the order of sums, and with it the bytes, the same on any number of cores.
    """
    openvino = _openvino()
    cores = available()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
        "EXECUTION_MODE_HINT": "ACCURACY",
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        "ENABLE_CPU_PINNING": False,  # the threads that decode want a place, too
    }
    core = openvino_core()
    compiled = core.compile_model(_converted(openvino, _traced(network, shape), shape), "CPU", settings)

    def embed(images: Iterator[Image]) -> Iterator[Vector]:
        # Requests in a ring, not OpenVINO's queue with its callbacks: these want Python's lock in OpenVINO's threads, and whoever
        # lets go of a compiled model holds that lock while it waits for those threads to end.
        free = [compiled.create_infer_request() for _ in range(cores + 1)]
        running: deque[Any] = deque()
        try:
            for image in images:
                if not free:
                    free.append(running.popleft())
                    yield finished(free[-1])
                running.append(free.pop())
                running[-1].start_async([np.ascontiguousarray(image)[None]])  # copies the image
            while running:
                yield finished(running.popleft())
        finally:
            for request in running:
                request.wait()

    def finished(request: Any) -> Vector:
        request.wait()
        vector: Vector = request.get_output_tensor(0).data[0].copy()
        return vector

    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(noise[None]))[0].numpy()
    found = next(embed(iter([noise])))
    if found.shape != wanted.shape or not np.abs(found - wanted).max() <= SAME * np.abs(wanted).max():
        raise RuntimeError("its embedding of a test image differs from torch's")
    version = openvino.__version__.partition("-")[0]
    return Engine(f"openvino-{version} f32 {_digest(network)}", len(wanted), embed)


def _openvino() -> Any:
    """The package, with the decoder that _converted needs."""
    return import_openvino("openvino.frontend.pytorch.ts_decoder")


def _traced(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    """A TorchScript trace. torch.export would do, but with OpenVINO's decompositions it takes four times as long."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; shapes become constants, as they should
        blank = torch.zeros(1, *shape, dtype=torch.uint8)
        return torch.jit.freeze(torch.jit.trace(network, blank, check_trace=False))  # type: ignore[no-untyped-call]  # not annotated


def _converted(openvino: Any, traced: Any, shape: tuple[int, int, int]) -> Any:
    """OpenVINO's model, from uint8 [1, H, W, C] to float32 [1, D].

    By its front end rather than its convert_model, which reports to a server in its own right.
    """
    decoder_module = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    front_end = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    blank = torch.zeros(1, *shape, dtype=torch.uint8)
    decoder = decoder_module.TorchScriptPythonDecoder(traced, example_input=blank)  # front_end.load doesn't keep it alive
    model = front_end.load(decoder)
    image = model.get_inputs()[0]
    model.set_element_type(image, openvino.Type.u8)
    model.set_partial_shape(image, openvino.PartialShape([1, *shape]))
    return front_end.convert(model)


def _digest(network: nn.Module) -> str:
    """16 hex digits of SHA-256 of the network's layers and numbers."""
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
