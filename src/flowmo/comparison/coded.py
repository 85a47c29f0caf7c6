"""All pictures through all codecs for all numbers of bytes, in threads, every file kept (beside Figure 1)."""

from __future__ import annotations

import base64
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import PIL
from PIL import Image
from torch import Tensor

from ..evaluation.result_store import ResultStore
from ..evaluation.results import image_checksums
from .codecs import SCALES, Codec, CodecFile, Counted, Distance, best_files

Choices = dict[tuple[Counted, int], CodecFile | None]


@dataclass(frozen=True)
class Search:
    """What files of the codecs are looked for."""

    targets: tuple[int, ...]  # numbers of bytes an image
    counted: tuple[Counted, ...]  # ways of counting them
    scales: tuple[float, ...] = SCALES  # at which pictures are coded, as shares of a side


def code_all(
    images: Tensor,
    codecs: Sequence[Codec],
    search: Search,
    lpips: Distance,
    store: ResultStore,
    advance: Callable[[str], None],
    workers: int | None = None,
) -> dict[str, list[Choices]]:
    """Code every picture by every codec, and return the choices of each picture by the codec's name.

    images: uint8 N 3 H W.
    lpips: (images, reference) -> (B,).
    store: keeps every choice, and what it already holds is not coded again.
    advance: called with the codec's name after each picture, also for those that the store already holds.
    """
    found: dict[str, list[Choices]] = {codec.name: [] for codec in codecs}
    checksums = image_checksums(images)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        pending: deque[tuple[Codec, Any, Future[Choices] | Choices]] = deque()

        def collect() -> None:
            codec, key, result = pending.popleft()
            if isinstance(result, Future):
                result = result.result()
                store.add(key, [_to_json(choice, key) for key, choice in result.items()])
            found[codec.name].append(result)
            advance(codec.name)

        try:
            for codec, key, task in _tasks(images, checksums, codecs, search, lpips):
                known = store.get(key)
                pending.append((codec, key, pool.submit(task) if known is None else dict(map(_from_json, known))))
                if len(pending) > 4 * (workers or os.cpu_count() or 1):
                    collect()
            while pending:
                collect()
        finally:  # an error or Ctrl-C does not wait for what nobody wants any more
            pool.shutdown(wait=False, cancel_futures=True)
    return found


def _tasks(
    images: Tensor, checksums: list[str], codecs: Sequence[Codec], search: Search, lpips: Distance
) -> Iterator[tuple[Codec, Any, Callable[[], Choices]]]:
    for image, checksum in zip(images, checksums, strict=True):
        rgb = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
        for codec in codecs:
            asked = [sorted(search.targets), list(search.counted), list(search.scales)]
            key = ["coded", checksum, codec.name, codec.about, _version(codec), *asked]
            yield codec, key, partial(best_files, codec, rgb, search.targets, lpips, search.counted, search.scales)


def _version(codec: Codec) -> str:
    if codec.name != "jpegxl":
        return f"Pillow {PIL.__version__}"
    import imagecodecs

    return f"imagecodecs {imagecodecs.__version__}"


def _to_json(choice: CodecFile | None, key: tuple[Counted, int]) -> list[Any]:
    if choice is None:
        return [*key]
    return [*choice[:-1], base64.b64encode(choice.data).decode()]


def _from_json(values: list[Any]) -> tuple[tuple[Counted, int], CodecFile | None]:
    if len(values) == 2:
        return (values[0], values[1]), None
    choice = CodecFile(*values)
    return (choice.counted, choice.target), choice._replace(data=base64.b64decode(values[-1]))
