"""The quickest way here from many images to their embeddings, in float32.

OpenVINO runs these networks two to four times as fast as torch, but wants about a second to be ready: a handful of images goes
through torch. The choice depends on how many images there are, never on a clock, and every image goes through alone: so the same
image gives the same bytes at any place of any run.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.formats.onnx.openvino import import_openvino, openvino_core
from nestling.models.backbones import Network, Normalise
from nestling.preprocess.image import Preprocess

Image = NDArray[np.uint8]
Vector = NDArray[np.float32]
Embed = Callable[[Iterator[Image]], Iterator[Vector]]
Printed = Callable[[], bytes]  # a network as .onnx; a function, since where torch does the work it is not wanted

FEW = 16  # images that torch has done before OpenVINO would be ready (see benchmarks/features.py)
SAME = 1e-4  # how far OpenVINO's embedding may be from torch's, relative to its largest number


@dataclass(frozen=True)
class Engine:
    """What turns images into embeddings.

    name: everything that the numbers depend on besides image and preprocessing: runtime, version, precision, digest of the network.
    width: D. embed: uint8 [H, W, C] each -> float32 [D] each, in the same order; it looks a few images ahead, so that whoever
    decodes them works beside it.
    """

    name: str
    width: int
    embed: Embed

    def __call__(self, images: Image) -> Vector:
        """uint8 [N, H, W, C] -> float32 [N, D]."""
        vectors = np.empty((len(images), self.width), np.float32)
        for row, vector in zip(vectors, self.embed(iter(images)), strict=True):
            row[:] = vector
        return vectors


def engine_for(backbone: nn.Module, preprocess: Preprocess, count: int) -> Engine:
    """The engine for `count` images of a backbone that takes normalised float32 [N, C, H, W] (models.build_backbone).

    count: all images of the task, whether or not a cache knows some of them: the choice must not depend on what ran before.
    The backbone is copied: what is learned later doesn't change the engine. Where OpenVINO is missing or does not take the
    network, torch does the work and a warning says so.
    """
    return engine_of(Network(Normalise(preprocess), backbone, None), (*preprocess.size, preprocess.channels), count)


def engine_of(network: nn.Module, shape: tuple[int, int, int], count: int, printed: Printed | None = None) -> Engine:
    """As engine_for, for any network that takes uint8 [N, H, W, C] of `shape` (H, W, C) and gives float32 [N, D].

    printed: gives the network as .onnx, one image in and one embedding out, for OpenVINO to read instead of a trace of it.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if count <= FEW:
        return torch_engine(network, shape)
    try:
        return openvino_engine(network, shape, printed)
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


def openvino_engine(network: nn.Module, shape: tuple[int, int, int], printed: Printed | None = None) -> Engine:
    """OpenVINO, one stream of one thread a core. Its embedding of one image of noise must be torch's, or RuntimeError is raised.

    printed: see engine_of. One thread a stream keeps the order of sums, and with it the bytes, the same on any number of cores.
    """
    openvino = _openvino()
    cores = _cores()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
        "EXECUTION_MODE_HINT": "ACCURACY",
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        "ENABLE_CPU_PINNING": False,  # the threads that decode want a place, too
    }
    core = openvino_core()
    model = core.read_model(printed()) if printed else _converted(openvino, _traced(network, shape), shape)
    compiled = core.compile_model(model, "CPU", settings)

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
    source = " onnx" if printed else ""  # its sums differ from those of a trace
    return Engine(f"openvino-{version}{source} f32 {_digest(network)}", len(wanted), embed)


def _openvino() -> Any:
    """The package, with the decoder that _converted needs."""
    return import_openvino("openvino.frontend.pytorch.ts_decoder")


def _traced(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    """A TorchScript trace. torch.export would do, but with OpenVINO's decompositions it takes four times as long."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; shapes become constants, as they should
        blank = torch.zeros(1, *shape, dtype=torch.uint8)
        return torch.jit.freeze(torch.jit.trace(network, blank, check_trace=False))  # type: ignore[no-untyped-call]


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


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
