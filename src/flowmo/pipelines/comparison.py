"""A whole comparison by names: its models, tokenizers of others and codecs are opened first (Table 1, Figure 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from ..comparison.adapters import Peer, open_peer
from ..comparison.codecs import get_codec
from ..comparison.peers.adapter import published_peer
from ..comparison.report import RESULT, Comparison
from ..comparison.session import ComparisonSettings, Request, compare_all
from ..comparison.transform_code import NAME as TRANSFORM
from ..comparison.transform_code import check_closed_form
from ..errors import ImageError
from ..evaluation.results import numbered, short_name
from ..evaluation.session import hold
from ..files import check_targets
from ..tokenizer import FlowMo
from ..viewing.plots import need_matplotlib
from ..weights.sizes import size_warning
from .loading import LoadOptions


@dataclass(frozen=True)
class ComparisonRequest(ComparisonSettings):
    """What is compared, by name, and how; ``flowmo compare`` has a flag for each field."""

    data: str  # the pictures, as ``data.open_images`` takes them
    out: Path  # folder for the result, the table and the plots
    models: Sequence[str] = ()  # as ``LoadOptions.load`` takes them
    peers: Sequence[str] = ()  # tokenizers of others, as ``published_peer`` or ``open_peer`` takes them
    trust: bool = False  # whether the code in files and modules of ``peers`` is run
    codecs: Sequence[str] = ()  # names of image codecs; "transform" is the closed-form code
    transform: str | None = None  # the file of that code; None for one fitted on the training split
    load: LoadOptions = field(default_factory=LoadOptions)  # how models are loaded, and where all is measured
    force: bool = False  # whether a finished comparison in the folder is overwritten

    def opened(self) -> Request:
        """Return the same with everything loaded. Raises ConfigError or WeightsError."""
        codecs = [get_codec(name) for name in dict.fromkeys(self.codecs) if name != TRANSFORM]
        models = self.load.load_ready(self.models, tokens=True)
        device = torch.device(self.load.device)
        peers: list[Peer] = [published_peer(spec, device) or open_peer(spec, self.trust) for spec in self.peers]
        transform: FlowMo | bool = TRANSFORM in self.codecs
        if transform and self.transform:
            transform = check_closed_form(LoadOptions().load(self.transform), self.transform)
        shared = {f.name: getattr(self, f.name) for f in fields(ComparisonSettings)}
        named = list(zip(numbered([short_name(name) for name in self.models]), models, strict=True))
        return Request(self.data, named, peers, codecs, transform, device, **shared)


def compare_named(
    request: ComparisonRequest,
    on_bad: Callable[[str, ImageError], None],
    say: Callable[[str], None] = lambda line: None,
    on_coded: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Comparison, list[str]]:
    """Open everything, and return what :func:`compare_all` returns, which takes the other arguments.

    Raises ConfigError where the folder has a comparison already or another process makes one in it, and without
    matplotlib.
    """
    check_targets([request.out / RESULT], force=request.force)
    need_matplotlib()
    with hold(request.out):
        opened = request.opened()
        for config in dict.fromkeys(opened.configs):
            if (warning := size_warning(opened.image_size, config)) is not None:
                say(warning)
        return compare_all(opened, request.out, on_bad, say, on_coded)
