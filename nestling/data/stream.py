"""Decoding beside the network: threads read and resize the next images while the caller works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from nestling.data.folders import Item, LeftOut
from nestling.preprocess.image import Preprocess, try_load
from nestling.preprocess.pictures import Uint8Array
from nestling.preprocess.room import Room

AHEAD = 8  # images that wait, a worker: enough to hide one slow file, 1.2 MB at 224 x 224


def stream(items: Sequence[Item], preprocess: Preprocess, workers: int) -> Iterator[tuple[int, Uint8Array | LeftOut]]:
    """Each item's index, in order, with its image, uint8 [h, w, C]; or with a LeftOut, where it cannot be decoded.

    At most workers * AHEAD images are held; large files wait for one another (see room.py). Pillow lets go of the interpreter's
    lock while it decodes and resizes, so threads do. Leaving the loop early (or Ctrl-C) drops what was not
    begun.
    """

    room = Room(workers)

    def read(item: Item) -> Uint8Array | LeftOut:
        image = try_load(preprocess, item.file, room)
        return LeftOut(item.path, image) if isinstance(image, str) else image

    waiting: deque[Future[Uint8Array | LeftOut]] = deque()
    left = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for index in range(len(items)):
            while len(waiting) < workers * AHEAD and (item := next(left, None)) is not None:
                waiting.append(pool.submit(read, item))
            yield index, waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
