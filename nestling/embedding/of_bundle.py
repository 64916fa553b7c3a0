"""The engine of a bundle: from many images to the embeddings of its float backbone."""

from __future__ import annotations

from dataclasses import replace

from nestling.bundle import Bundle
from nestling.data.folders import Dataset
from nestling.embedding.engine import Engine, graph_engine
from nestling.embedding.refit import training_views
from nestling.errors import NoGraph
from nestling.models.float_graph import float_graph


def bundle_engine(bundle: Bundle, count: int) -> Engine:
    """The engine for `count` images of a bundle's float backbone: uint8 [H, W, C] -> embedding float32 [D]. The head is not in it.

    count: of all the task, as network_engine.engine_of has it, which does the work where the network becomes no Graph.
    Raises NestlingError for a bundle whose network is an integer one.
    """
    body = replace(bundle, head=None)
    try:
        return graph_engine(float_graph(body))
    except NoGraph:
        from nestling.embedding.network_engine import engine_of
        from nestling.models.backbones import build

        return engine_of(build(body), (*body.preprocess.size, body.preprocess.channels), count)


def engine_for(bundle: Bundle, dataset: Dataset) -> Engine:
    """The engine for all photographs that a bundle has learned from: the one that fit took, so that the cache knows them."""
    return bundle_engine(bundle, len(dataset.items) * len(training_views(bundle)))
