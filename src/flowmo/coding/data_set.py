"""Stage 2, data: a whole data set's tokens and labels are written to one shard (Appendix A.3).

Several processes share the work, which may be killed and resumed. While the shard is made, parts of it lie in a hidden
folder beside it, each a shard of ``PART`` images; what is whole there is not coded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import ImageOps
from torch import Tensor

from ..codec import Shard, read_shard, write_shard
from ..data import FITS, Fit, ImageSource, fit_image, to_tensor
from ..errors import ConfigError, ImageError, TokenFileError
from ..files import only_one, replacing
from ..quantize.tokens import Tokens
from ..training.processes.distributed import World

PART = 1024


class CoderConfig(Protocol):
    """What a shard says of its tokens."""

    @property
    def bits_per_group(self) -> int: ...

    @property
    def bits_per_token(self) -> int: ...

    def tokens_of(self, size: tuple[int, int]) -> int: ...


class Coder(Protocol):
    """A tokenizer that codes images: FlowMo, and other people's tokenizers (Table 2)."""

    @property
    def config(self) -> CoderConfig: ...

    def fingerprint(self) -> int: ...

    def tokenize(self, images: Tensor, bits_per_token: int | None = None) -> Tokens: ...


@dataclass(frozen=True)
class CodingJob:
    """What becomes of the images of a data set."""

    source: ImageSource  # the images
    size: tuple[int, int]  # (height, width) in pixels that they get
    fit: Fit = "crop"  # how they get it
    labels: Sequence[int] | None = None  # one an image
    classes: list[str] | None = None  # names of the labels
    batch_size: int = 16  # images at a time
    flip: bool = False  # each image is mirrored, left to right
    bits_per_token: int | None = None  # the first so many bits of each token; None for all
    precision: str = "fp32"  # of the model's weights: parts of one shard must not differ in it
    tokenizer: str | None = None  # the name of another tokenizer than FlowMo
    num_codes: int | None = None  # integers that it knows, where they are fewer than the bits of a token allow

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"fit must be one of {', '.join(FITS)}; got {self.fit!r}")
        if self.labels is not None and len(self.labels) != len(self.source):
            raise ConfigError(f"{len(self.labels)} labels for {len(self.source)} images; give one an image")

    def key(self, fingerprint: int) -> str:
        """Return a digest of all that the parts depend on beside the pixels."""
        digest = hashlib.sha256()
        for i in range(len(self.source)):
            label = None if self.labels is None else int(self.labels[i])
            digest.update(json.dumps([self.source.name(i), label]).encode())
        settings = [fingerprint, list(self.size), self.fit, self.classes, PART, digest.hexdigest(), self.flip]
        settings += [] if self.bits_per_token is None else [self.bits_per_token]
        settings += [] if self.precision == "fp32" else [self.precision]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


class Coded(NamedTuple):
    """A data set as tokens."""

    shard: Shard | None  # as it was written; None, and nothing written, where no image can be read
    bad: list[tuple[str, str]]  # names of the images that could not be read, and why


def code_data_set(
    model: Coder,
    job: CodingJob,
    target: Path,
    world: World,
    on_done: Callable[[int, bool], None] = lambda count, coded: None,
    force: bool = False,
) -> Coded | None:
    """Write the shard ``target`` and return the data set as tokens; None on other processes than the first.

    Processes share the images. A call that was killed goes on where it was when it is made again.

    on_done: told a number of images of this process that are done, and whether they had to be coded.
    force: whether parts of another job are removed.
    Raises ConfigError for parts of another job without ``force``, and where another process makes the same shard.
    """
    folder = target.with_name(f".{target.name}.parts")
    fingerprint = model.fingerprint()
    key = job.key(fingerprint)
    trouble = None
    lock = target.with_name(f".{target.name}.lock")
    with only_one(lock) if world.main else contextlib.nullcontext(True) as alone:
        if world.main:
            trouble = _prepare(folder, key, force) if alone else f"another process writes {target}; wait for it"
        trouble = world.share(trouble)
        if trouble:
            raise ConfigError(trouble)
        parts = range(-(-len(job.source) // PART))
        for k in parts[world.rank :: world.size]:
            places = range(k * PART, min((k + 1) * PART, len(job.source)))
            shard = _whole(folder / f"{k:06d}.shard", fingerprint)
            if shard is None:
                _code_part(model, fingerprint, job, places, folder / f"{k:06d}", on_done)
            else:
                on_done(len(places), False)
        world.wait()
        if not world.main:
            return None
        coded = _join(job, [folder / f"{k:06d}" for k in parts], fingerprint)
        if coded.shard is not None:
            write_shard(target, coded.shard)
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
    return coded


def _prepare(folder: Path, key: str, force: bool) -> str | None:
    """Make the folder of parts, or take the one that is there; return what is wrong with it, in words."""
    about = folder / "job.json"
    found = about.read_text() if about.is_file() else None
    if folder.exists() and found != key:
        if not force:
            return f"{folder} holds parts of a shard from other data or another model; remove it, or use --force"
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(about) as part:
        part.write_text(key)
    return None


def _whole(path: Path, fingerprint: int) -> Shard | None:
    """Return a part that is there; None for one that is not, or is damaged."""
    if not path.exists():
        return None
    try:
        return read_shard(path, fingerprint)
    except TokenFileError:
        return None


def _code_part(
    model: Coder,
    fingerprint: int,
    job: CodingJob,
    places: range,
    stem: Path,
    on_done: Callable[[int, bool], None],
) -> None:
    columns: list[Tensor] = []
    good: list[int] = []
    sizes: list[tuple[int, int]] = []
    bad: list[tuple[str, str]] = []
    for batch in _read(job, places):
        images = [image for _, image, _ in batch if isinstance(image, Tensor)]
        for place, image, size in batch:
            if isinstance(image, Tensor):
                good.append(place)
                sizes.append(size)
            else:
                bad.append((job.source.name(place), str(image)))
        if images:
            columns.append(model.tokenize(torch.stack(images), job.bits_per_token).indices)
        on_done(len(batch), True)
    config = model.config
    empty = torch.zeros(
        0,
        config.tokens_of(job.size),
        (job.bits_per_token or config.bits_per_token) // config.bits_per_group,
        dtype=torch.int64,
    )
    shard = Shard(
        Tokens(torch.cat(columns) if columns else empty, config.bits_per_group, job.size),
        [job.source.name(place) for place in good],
        None if job.labels is None else torch.tensor([int(job.labels[place]) for place in good], dtype=torch.int64),
        fingerprint,
        job.fit,
        torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        None,
        job.tokenizer,
        job.num_codes,
    )
    with replacing(stem.with_suffix(".json")) as part:
        part.write_text(json.dumps(bad))
    write_shard(stem.with_suffix(".shard"), shard)


def _read(job: CodingJob, places: range) -> Iterator[list[tuple[int, Tensor | ImageError, tuple[int, int]]]]:
    """Give batches of (place, image or why there is none, size), decoded by threads while the one before is coded."""

    def load(place: int) -> tuple[int, Tensor | ImageError, tuple[int, int]]:
        try:
            image = job.source[place]
            if job.flip:
                image = ImageOps.mirror(image)
            return place, to_tensor(fit_image(image, *job.size, job.fit)), (image.height, image.width)
        except ImageError as error:
            return place, error, (0, 0)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pending: deque[list[Future]] = deque()
        for start in range(0, len(places), job.batch_size):
            pending.append([pool.submit(load, place) for place in places[start : start + job.batch_size]])
            if len(pending) > 2:
                yield [future.result() for future in pending.popleft()]
        for futures in pending:
            yield [future.result() for future in futures]


def _join(job: CodingJob, stems: Sequence[Path], fingerprint: int) -> Coded:
    shards = [read_shard(stem.with_suffix(".shard"), fingerprint) for stem in stems]
    bad = [tuple(pair) for stem in stems for pair in json.loads(stem.with_suffix(".json").read_text())]
    names = [name for shard in shards for name in shard.names]
    if not names:
        return Coded(None, bad)
    first = shards[0].tokens
    return Coded(
        Shard(
            Tokens(torch.cat([s.tokens.indices for s in shards]), first.bits_per_group, job.size),
            names,
            None if job.labels is None else torch.cat([s.labels for s in shards if s.labels is not None]),
            fingerprint,
            job.fit,
            torch.cat([s.original_sizes for s in shards if s.original_sizes is not None]),
            job.classes,
            job.tokenizer,
            job.num_codes,
        ),
        bad,
    )
