"""A whole comparison in one call: from models, codecs and pictures to the files in a folder (Table 1, Figure 1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import torch

from ..config import FlowMoConfig
from ..data import read_first
from ..errors import ConfigError, ImageError
from ..evaluation.evaluator import Evaluator
from ..evaluation.feature_cache import feature_caches
from ..evaluation.result_store import ResultStore
from ..evaluation.results import data_name
from ..evaluation.session import PARTIAL
from ..metrics.networks import WeightFiles
from ..tokenizer import FlowMo
from .adapters import FlowMoPeer, Peer, at_rates
from .codecs import COUNTED, Codec, Counted
from .coded import Search, code_all
from .compare import Row, all_methods, codec_methods, compare
from .inputs import DEFAULT, byte_targets, common_size, comparison_networks, nearest
from .report import STORE, Comparison, in_words, write_comparison
from .transform_code import NAME as TRANSFORM
from .transform_code import transform_code


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """How a comparison goes, whatever is compared; ``flowmo compare`` has a flag for each field."""

    bytes: Sequence[int] | None = None  # an image, that codecs may take; None for what the models take
    counted: Sequence[Counted] = COUNTED  # of a codec's file
    controls: bool = False  # each model in one step too, and with the codes of other pictures
    size: tuple[int, int] | None = None  # (height, width) of the pictures in pixels; None for that of the models
    seed: int = 0  # of the first picture's noise
    metrics: Sequence[str] = DEFAULT  # beside PSNR, SSIM and LPIPS (Alex)
    files: WeightFiles = field(default_factory=WeightFiles)  # of the networks that measure
    split: str | None = None  # of the data; None for validation
    limit: int | None = None  # pictures; None for all
    batch_size: int = 16  # pictures at a time
    workers: int | None = None  # threads that code; None for one a core
    command: str = ""  # that was typed


@dataclass(frozen=True)
class Request(ComparisonSettings):
    """What is compared, loaded already, and how."""

    data: str  # the pictures, as ``data.open_images`` takes them
    models: Sequence[tuple[str, FlowMo]] = ()  # (name, model)
    peers: Sequence[Peer] = ()  # tokenizers of others
    codecs: Sequence[Codec] = ()  # image codecs
    transform: FlowMo | bool = False  # the closed-form code too: this one, or True for one fitted on the training split
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # of the networks that measure

    @property
    def configs(self) -> list[FlowMoConfig]:
        """Return the configurations of the models."""
        return [model.config for _, model in self.models]

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the size of the pictures. Raises ConfigError or ImageError for one that there cannot be."""
        return common_size(self.configs, self.size)


def compare_all(
    request: Request,
    out: Path,
    on_bad: Callable[[str, ImageError], None],
    say: Callable[[str], None] = lambda line: None,
    on_coded: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Comparison, list[str]]:
    """Compare, write the result, the table and the plots into the folder ``out``, and return it and their names.

    A call that was killed goes on where it was when it is made again; ``session.hold`` keeps others out meanwhile.
    on_bad: called with each picture that cannot be read. say: told of each row.
    on_coded: told of how many are coded, of all pictures by all codecs, after each.
    Raises ConfigError for what does not compare, WeightsError where LPIPS (Alex) is missing.
    """
    r, started, size = request, time.time(), request.image_size
    search = Search(byte_targets(r.configs, size, r.bytes), tuple(r.counted))
    if not search.targets and (r.codecs or r.transform):
        raise ConfigError("there is no model to take numbers of bytes from, so say them: --bytes")
    bad: list[dict[str, str]] = []

    def skip(name: str, error: ImageError) -> None:
        bad.append({"file": name, "reason": str(error)})
        on_bad(name, error)

    networks = comparison_networks(r.metrics, size, r.device, r.files, say)
    images = read_first(r.data, r.split, size, skip, r.limit, eight_bits=True)
    features = feature_caches(networks, out / PARTIAL)
    evaluator = Evaluator(images.images, networks, r.batch_size, r.device, features)
    models = list(r.models)
    linear: list[FlowMoPeer] = []
    if r.transform:
        kept = out / f"{TRANSFORM}.safetensors"
        fitted = transform_code(r.data, kept, search.targets, size, say) if r.transform is True else r.transform
        models.append((TRANSFORM, fitted))
        linear = at_rates(TRANSFORM, fitted, search.targets, size)
    seeds = [r.seed + place for place in images.places]
    methods = [
        replace(method, group="tokenizer") if method.name == TRANSFORM else method  # not ours, but what ours must beat
        for method in all_methods(r.models, [*linear, *r.peers], search.targets, images.images, seeds, r.controls)
    ]
    store = ResultStore(out / STORE)
    distance = nearest(networks.lpips["alex"], r.device)
    coded, total = count(1), len(r.codecs) * len(images.images)
    found = code_all(
        images.images, r.codecs, search, distance, store, lambda _: on_coded(next(coded), total), r.workers
    )
    methods += [method for codec in r.codecs for method in codec_methods(codec, found[codec.name], search)]

    def finished(row: Row) -> None:
        say(in_words(row))
        store.add(["seconds", started], time.time() - started)

    rows = compare(evaluator, methods, store, finished, linear)
    seconds = sum(value for key, value in store.entries.items() if key.startswith('["seconds"'))
    about = (data_name(r.data), bad, seconds, r.seed, r.command, r.device)
    done = Comparison(rows, models, r.codecs, search, networks, images, *about)
    files = write_comparison(out, done)
    for cache in features.values():
        cache.remove()
    return done, files
