"""Stage 2, data: images that are named, or a data set, become a shard or an array of tokens (Appendix A.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..codec import Shard, files_beside, write_array
from ..data import Fit
from ..data.given import labels_of, open_given
from ..errors import ConfigError
from ..files import check_targets
from ..generation import read_class_names
from ..quantize.tokens import payload_size
from ..training.processes.distributed import World
from .data_set import Coder, CodingJob, code_data_set

SUFFIXES = (".shard", ".safetensors", ".npy")


@dataclass(frozen=True)
class ShardRequest:
    """What becomes a shard, or the array of a .npy file; ``flowmo tokenize`` has a flag for each field."""

    images: Sequence[str]  # files, folders and patterns, or one data set
    target: Path  # the file to write, of one of SUFFIXES
    split: str | None = None  # part of a data set
    limit: int | None = None  # the first so many images; None for all
    labels: bool = False  # whether sub-folders are classes
    label_file: Path | None = None  # labels as text
    class_names: Path | None = None  # names of the labels
    fit: Fit = "crop"  # how images get their size
    flip: bool = False  # each image is mirrored, left to right
    batch_size: int = 16  # images at a time
    precision: str = "fp32"  # of the model's weights
    force: bool = False  # whether files that exist are overwritten

    def __post_init__(self) -> None:
        if self.target.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--shard {self.target}: the name of a shard ends in {' or '.join(SUFFIXES)}")
        if self.labels and self.label_file:
            raise ConfigError("give either --labels, from the folders, or --label-file")


class Opened(NamedTuple):
    """A tokenizer that is ready to code."""

    model: Coder  # on the device of the process
    size: tuple[int, int]  # (height, width) in pixels of the images that it codes
    bits_per_token: int | None = None  # the bits of each token that are kept; None for all
    name: str | None = None  # of another tokenizer than FlowMo
    num_codes: int | None = None  # as in ``CodingJob``


class CodedShard(NamedTuple):
    """A shard that was made."""

    shard: Shard | None  # as it was written; None, and nothing written, where no image can be read
    bad: list[tuple[str, str]]  # names of the images that could not be read, and why
    fingerprint: int  # of the tokenizer
    size: tuple[int, int]  # (height, width) of the images in pixels
    payload: int  # bytes of one image's tokens
    new: int  # images that were coded now, and not before
    rate: float  # of them a second


def make_shard(
    request: ShardRequest,
    open_coder: Callable[[World], Opened],
    world: World,
    on_open: Callable[[int], None] = lambda total: None,
    on_done: Callable[[int], None] = lambda count: None,
) -> CodedShard | None:
    """Write the shard, or the array, that is asked for, and return it; None on other processes than the first.

    Processes share the images. A call that was killed goes on where it was when it is made again.
    open_coder: returns the tokenizer, once it is known that the file may be written.
    on_open: told how many images there are. on_done: told a number of images of this process that are done.
    Raises ConfigError for a file that exists or is being written, DataError or ImageError where there are no images.
    """
    r = request
    source, classes, paths = open_given(r.images, r.split, r.limit, r.labels)
    labels = labels_of(source, r.label_file)
    if r.class_names:
        classes = read_class_names(r.class_names)
        if not labels:
            raise ConfigError("--class-names names labels, and these pictures have none; give --labels or --label-file")
    array = r.target.suffix.lower() == ".npy"
    if world.main:
        check_targets([r.target, *files_beside(r.target)] if array else [r.target], paths, r.force)
    world.wait()
    file = r.target.with_name(f".{r.target.name}.shard") if array else r.target
    model, size, bits, name, num_codes = open_coder(world)
    about = (labels, classes if labels else None, r.batch_size, r.flip, bits, r.precision, name, num_codes)
    on_open(len(source))
    new, start = 0, time.perf_counter()

    def done(count: int, coded: bool) -> None:
        nonlocal new
        new += count if coded else 0
        on_done(count)

    coded = code_data_set(model, CodingJob(source, size, r.fit, *about), file, world, done, r.force)
    seconds = time.perf_counter() - start
    new = sum(world.gather(new))
    if coded is None:
        return None
    if array and coded.shard is not None:
        write_array(r.target, coded.shard)
        file.unlink()
    payload = payload_size(model.config.tokens_of(size), bits or model.config.bits_per_token)
    return CodedShard(*coded, model.fingerprint(), size, payload, new, new / max(seconds, 1e-9))


def labels_in_words(shard: Shard) -> str:
    """Return how many classes a shard has labels of, with the first names, or how it gets some."""
    if shard.labels is None:
        return "without labels, which a generator needs: --labels for class folders, or --label-file"
    named = [f"{i} {name}" for i, name in enumerate(shard.classes or [])][:5]
    more = " ..." if len(shard.classes or []) > len(named) else ""
    return f"labels of {len(shard.labels.unique())} classes" + (": " + ", ".join(named) if named else "") + more
