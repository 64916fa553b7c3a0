"""The quickest way from many images to the embeddings of a bundle."""

from __future__ import annotations

from dataclasses import replace

from nestling.bundle import Bundle
from nestling.data.folders import Dataset
from nestling.embedding.engine import Engine, engine_of
from nestling.embedding.refit import training_views
from nestling.formats.about import about
from nestling.formats.onnx.printing import print_graph
from nestling.graph.ir import Graph
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph


def bundle_engine(bundle: Bundle, count: int) -> Engine:
    """The engine for `count` images of a bundle's float backbone: uint8 [H, W, C] -> embedding float32 [D]. The head is not in it.

    count: as engine_for has it. An architecture that is a Graph goes to OpenVINO as the .onnx that is printed of it: out of a
    GraphModule's trace it makes a network 2.5 times as slow, with a transpose before and after every layer.
    Raises NestlingError for a bundle whose network is an integer one.
    """
    body = replace(bundle, head=None)
    shape = (*body.preprocess.size, body.preprocess.channels)
    printed = (lambda: print_graph(float_graph(body), about(body, "embedding"))) if isinstance(body.architecture, Graph) else None
    return engine_of(build(body), shape, count, printed)


def engine_for(bundle: Bundle, dataset: Dataset) -> Engine:
    """The engine for all photographs that a bundle has learned from: the one that fit took, so that the cache knows them."""
    return bundle_engine(bundle, len(dataset.items) * len(training_views(bundle)))
