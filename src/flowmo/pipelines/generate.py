"""One or two generators write images of the same classes: single files, one ``.npz``, a grid (Table 2, Figure 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..comparison.peers.tokenizer import open_square
from ..errors import ConfigError
from ..files import check_targets
from ..flow.guidance import idle_guidance
from ..generation import PACKAGED_GENERATOR, Generator, load_generator
from ..inference import PRECISIONS, made_ready
from ..tokenizer import FlowMo
from ..training.processes.distributed import World
from ..viewing import captioned_grid, two_columns, write_png
from ..weights.load import load, packaged_by_fingerprint
from .class_images import (
    Detokenizer,
    ImageGenerator,
    Order,
    chosen_labels,
    image_generators,
    steps_strip,
    title,
    write_samples,
)
from .loading import LoadOptions
from .many_images import write_many


@dataclass(frozen=True)
class GenerationRequest:
    """What is generated, and where it goes; ``flowmo generate`` has a flag for each field."""

    out: Path  # folder of single images, the grid and the strips
    generators: Sequence[str] = (PACKAGED_GENERATOR,)  # files or folders of runs: one, or two for the same classes
    classes: Sequence[str] = ()  # by number, name or WordNet id; none for all of them
    any_class: bool = False  # images of no class in particular
    count: int = 4  # images of each class
    seed: int = 0  # the number of the first image of a class
    settings: dict[str, Any] = field(default_factory=dict)  # of DecodeSettings; others are the generator's own
    decoder: dict[str, Any] = field(default_factory=dict)  # settings of ``FlowMo.detokenize``; None for its own
    npz: Path | None = None  # one file of all images, in ADM's layout
    no_images: bool = False  # neither single images nor a grid
    show_steps: int | None = None  # moments of the unmasking, as a strip
    size: int | None = None  # side in pixels that the images are brought to; None for that of the tokens
    batch_size: int = 16  # images at a time
    precision: str = "fp32"  # of the weights
    compile: bool = False  # the networks' blocks and passes
    force: bool = False  # whether files that exist are overwritten

    def __post_init__(self) -> None:
        if self.no_images and not self.npz:
            raise ConfigError("--no-pictures leaves nothing to write without --npz")

    @property
    def grid(self) -> Path | None:
        """Return the file of the grid."""
        return None if self.no_images else self.out / "grid.png"

    def order(self, source: ImageGenerator, labels: Sequence[int]) -> Order:
        """Return what one generator is to write; of two, each under its own name."""
        name = source.name if len(self.generators) > 1 else ""
        suffix = f"-{name}" if name else ""
        return Order(
            labels=list(labels),
            count=self.count,
            seed=self.seed,
            settings=replace(source.generator.config.decoding, **self.settings),
            batch_size=self.batch_size,
            decoder=self.decoder,
            folder=None if self.no_images else self.out / name,
            npz=self.npz and self.npz.with_stem(f"{self.npz.stem}{suffix}"),
            strip=self.out / f"steps{suffix}.png" if self.show_steps else None,
            classes=source.generator.classes,
            whole_batches=self.compile,
            size=self.size,
        )


class Generated(NamedTuple):
    """Images that were generated."""

    images: int  # of each generator
    classes: list[str]  # in words
    written: list[Path]  # all files but the grid
    shown: list[Path]  # the files that are not single images


def generate_images(
    request: GenerationRequest,
    tokenizers: Callable[[Sequence[Generator], torch.device], Sequence[Detokenizer]],
    world: World,
    say: Callable[[str], None] = lambda line: None,
    on_open: Callable[[int], None] = lambda total: None,
    on_done: Callable[[int], None] = lambda count: None,
) -> Generated | None:
    """Write the images that are asked for; None on other processes than the first.

    Several processes share the images of an ``.npz``. A call that was killed in it goes on where it was.
    tokenizers: returns, on a device, those whose tokens the generators make.
    say: called in the first process with notes for a person. on_open: told how many images there are. on_done: told a
    number of images that are done.
    Raises ConfigError for settings that do not fit, TokenFileError for generators over the tokens of others.
    """
    r = request
    if world.size > 1 and not r.npz:
        raise ConfigError("several processes share the pictures of one file; give --npz FILE, or start one process")
    generators = [load_generator(file, world.device) for file in r.generators]
    labels = chosen_labels(generators, r.classes, r.any_class)
    if not r.classes and not r.any_class and world.main:
        say(
            f"no --class was given: {r.count:,} of each of {len(labels):,} classes, {r.count * len(labels):,} images; "
            "'flowmo info' on the generator lists its classes"
        )
    sources = image_generators(r.generators, generators, tokenizers(generators, world.device))
    orders = [r.order(source, labels) for source in sources]
    written = [path for order in orders for path in order.targets]
    grid = [r.grid] if r.grid else []
    if world.main:
        _tell_idle(r, sources, say)
        check_targets([*written, *grid], map(Path, r.generators), r.force)
    world.wait()

    for source in sources:
        if isinstance(source.tokenizer, FlowMo):  # others are decoded with in float32
            made_ready(source.tokenizer, r.precision, r.compile, r.batch_size)
        source.generator.to(PRECISIONS[r.precision])
        for block in source.generator.blocks if r.compile else ():
            block.compile(dynamic=False)
    on_open(sum(len(order.each) for order in orders))
    sheets = []
    for source, order in zip(sources, orders, strict=True):
        rows = write_many(source, order, world, on_done) if order.npz else write_samples(source, order, on_done)
        if not world.main:
            continue
        if grid:
            sheets.append(captioned_grid(rows))
        if order.strip is not None:
            write_png(order.strip, steps_strip(source, order, r.show_steps or 1))
    if not world.main:
        return None
    for path in grid:
        write_png(path, sheets[0] if len(sheets) == 1 else two_columns(*sheets))
    shown = [*(order.npz for order in orders), *grid, *(order.strip for order in orders)]
    classes = [title(generators[0], label) for label in labels]
    return Generated(len(orders[0].each), classes, written, [path for path in shown if path])


def tokenizers_of(
    generators: Sequence[Generator],
    device: torch.device,
    names: Sequence[str] = (),
    peers: Sequence[str] = (),
) -> list[Detokenizer]:
    """Return the tokenizers that are named, on a device; other people's take the image size of their generator.

    Where none is named, they are the packaged ones whose tokens the generators make, or else the default one.
    names: of our own, as ``LoadOptions.load`` takes them. peers: others, NAME=FILE.
    """
    own = [LoadOptions().load(name) for name in names]
    if not names and not peers:
        wanted = {int(generator.config.tokens.fingerprint, 16) for generator in generators}
        own = [*packaged_by_fingerprint(wanted).values()] or [load()]
    for model in own:
        model.to(device).require_tokens()
    found: list[Detokenizer] = [*own]
    layouts = [generator.config.tokens for generator in generators]
    for spec in peers:
        named = [layout for layout in layouts if layout.tokenizer == spec.partition("=")[0]] or layouts
        found.append(open_square(spec, named[0].image_size, device))
    return found


def _tell_idle(request: GenerationRequest, sources: Sequence[ImageGenerator], say: Callable[[str], None]) -> None:
    """Say where the decoder's guidance that was asked for acts at none of its steps."""
    asked = {name: request.decoder.get(name) for name in ("guidance_scale", "num_steps")}
    given = {name: value for name, value in asked.items() if value is not None}
    for source in sources if "guidance_scale" in given else ():
        own = source.tokenizer.config.sampler
        if own is not None and (why := idle_guidance(replace(own, **given))) is not None:
            say(f"note: --decoder-guidance {why}")
