"""``flowmo generate``: pictures of classes, from a generator and the tokenizer that it was trained with (Stage 2). Each
picture has a seed of its own and is the same whatever the batch. --compare A B samples the same classes by two
generators side by side, each with its own tokenizer. A killed --npz goes on where it was when it is given again, and
under torchrun several processes share its pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import usable_device
from ..errors import ConfigError
from ..experiments.class_images import (
    Detokenizer,
    ImageGenerator,
    Order,
    chosen_labels,
    image_generators,
    steps_strip,
    title,
    write_samples,
)
from ..files import check_targets
from ..generation import PACKAGED_GENERATOR, DecodeSettings, Generator, load_generator
from ..tokenizer import FlowMo
from ..viewing import captioned_grid, two_columns, write_png
from ..weights.load import packaged_names
from . import common, models
from .fields import add_fields, add_flag, fields_of
from .peers import add_decoding_peer, open_peer_of, refuse_our_settings
from .printing import Progress, print_json
from .values import finite, positive, seed, steps

if TYPE_CHECKING:
    import torch

    from ..training import World

DRAWING = {
    "num_steps": ("--steps", "steps of unmasking"),
    "schedule": ("--schedule", "how many stay masked"),
    "temperature": ("--temperature", "softmax temperature at the first step"),
    "final_temperature": ("--final-temperature", "softmax temperature at the last step"),
    "choice_noise": ("--choice-noise", "Gumbel noise on which tokens stay, falling to 0"),
    "guidance_scale": ("--guidance", "strength of the class; 1 is none and faster"),
    "guidance_decay": ("--guidance-decay", "how guidance rises over the steps; none is full from the first"),
    "convention": (
        "--convention",
        "how these numbers are read; titok as TiTok does, whose guidance is ours less 1 and whose others are "
        "--temperature 1.3 --final-temperature 0.5 --choice-noise 2.8",
    ),
}
"""Flags of DecodeSettings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    what = "generator, or the folder of its run (default: %(default)s, which is packaged)"
    which.add_argument("--generator", default=PACKAGED_GENERATOR, metavar="FILE", help=what)
    which.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two generators, for the same classes and seeds")
    what = "tokenizer whose tokens a generator makes; twice where two generators differ (default: the packaged one)"
    parser.add_argument("--tokenizer", action="append", default=[], metavar="MODEL", help=what)
    add_decoding_peer(parser, action="append", default=[])
    what = "number, name or WordNet id of a class; once for each (default: every class)"
    parser.add_argument("--class", action="append", default=[], dest="classes", metavar="CLASS", help=what)
    parser.add_argument("--any-class", action="store_true", help="pictures of no class in particular")
    add_flag(parser, "-n", positive, "pictures a class", 4)
    add_flag(parser, "--npz", Path, "write all pictures into one .npz in ADM's layout too")
    parser.add_argument("--no-pictures", action="store_true", help="with --npz, write no single pictures and no grid")
    add_flag(parser, "--show-steps", positive, "write K moments of the unmasking as a strip too", metavar="K")
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_precision_arguments(parser)
    drawing = parser.add_argument_group("drawing tokens")
    add_fields(drawing, DecodeSettings(), DRAWING)
    add_flag(drawing, "--seed", seed, "number of the first picture of a class; each has its own seed", 0)
    decoder = parser.add_argument_group("decoding", "defaults are stored with the tokenizer")
    add_flag(decoder, "--decoder-steps", steps, "steps of the tokenizer's decoder")
    add_flag(decoder, "--decoder-guidance", finite, "guidance of the decoder")
    common.add_solver_argument(decoder, "--decoder-solver")
    common.add_device_argument(decoder)


def run(arguments: argparse.Namespace) -> int:
    from ..training import World  # takes seconds

    world = World.join(str(usable_device(arguments.device)))
    try:
        return _generate(arguments, world)
    finally:
        world.leave()


def _generate(arguments: argparse.Namespace, world: World) -> int:
    from ..experiments.many_images import write_many

    settings = DecodeSettings(**fields_of(arguments, DecodeSettings))
    if arguments.no_pictures and not arguments.npz:
        raise ConfigError("--no-pictures leaves nothing to write without --npz")
    if world.size > 1 and not arguments.npz:
        raise ConfigError("several processes share the pictures of one file; give --npz FILE, or start one process")
    files: list[str] = arguments.compare or [arguments.generator]
    generators = [load_generator(file, world.device) for file in files]
    labels = chosen_labels(generators, arguments.classes, arguments.any_class)
    if not arguments.classes and not arguments.any_class and world.main:
        print(
            f"no --class was given: {arguments.n:,} of each of {len(labels):,} classes, "
            f"{arguments.n * len(labels):,} images; 'flowmo info' on the generator lists its classes",
            file=sys.stderr,
        )
    tokenizers = _tokenizers(arguments, generators, world.device)
    both = image_generators(files, generators, tokenizers)
    if arguments.decoder_guidance is not None and world.main:
        for source in both:
            asked = {"guidance_scale": arguments.decoder_guidance, "num_steps": arguments.decoder_steps}
            given = {name: value for name, value in asked.items() if value is not None}
            if source.tokenizer.config.sampler is not None:
                models.tell_idle_guidance(replace(source.tokenizer.config.sampler, **given), "--decoder-guidance")
    orders = [_order(arguments, settings, source, labels) for source in both]
    targets = [path for one in orders for path in one.targets]
    grid = None if arguments.no_pictures else arguments.out / "grid.png"
    if world.main:
        check_targets([*targets, *([grid] if grid else [])], map(Path, files), arguments.force)
    world.wait()

    for source in both:
        if isinstance(source.tokenizer, FlowMo):  # others are decoded with in float32
            models.made_ready(source.tokenizer, arguments)
        source.generator.to(models.PRECISIONS[arguments.precision])
        for block in source.generator.blocks if arguments.compile else ():
            block.compile(dynamic=False)
    progress = Progress(len(both) * len(orders[0].each))
    sheets = []
    for source, one in zip(both, orders, strict=True):
        if one.npz is None:
            rows = write_samples(source, one, progress.advance)
        else:
            rows = write_many(source, one, world, progress.advance)
        if not world.main:
            continue
        if grid:
            sheets.append(captioned_grid(rows))
        if one.strip is not None:
            write_png(one.strip, steps_strip(source, one, arguments.show_steps))
    if not world.main:
        return 0
    if grid:
        write_png(grid, sheets[0] if len(sheets) == 1 else two_columns(*sheets))
    code = progress.finish()
    count = len(orders[0].each)
    if arguments.json:
        result: dict[str, Any] = {"generators": files, "classes": [title(generators[0], label) for label in labels]}
        result |= {"pictures": count, "written": [str(path) for path in targets], "grid": str(grid) if grid else None}
        print_json(result)
    else:
        print(f"{count} pictures of {len(labels)} classes" + " by each of two generators" * (len(files) > 1))
        for path in (*(one.npz for one in orders), grid, *(one.strip for one in orders)):
            if path:
                print(path)
    return code


def _tokenizers(
    arguments: argparse.Namespace, generators: Sequence[Generator], device: torch.device
) -> list[Detokenizer]:
    """Return our own and others, the latter for the image size of the generator that names them.

    Where none is named, the packaged one whose tokens the generators make, else the default, which is then refused.
    Raises ConfigError for settings of a decoder that another tokenizer does not have.
    """
    if arguments.peer and not arguments.tokenizer:
        refuse_our_settings(arguments, "--peer", ("decoder_steps", "decoder_guidance", "decoder_solver"))
    names = arguments.tokenizer or ([] if arguments.peer else packaged_names())
    own = [models.load_named(None, name, device=device) for name in names]
    if len(own) > 1 and not arguments.tokenizer:
        wanted = {generator.config.tokens.fingerprint for generator in generators}
        own = [model for model in own if f"{model.fingerprint():08x}" in wanted] or own[:1]
    for model in own:
        model.require_tokens()
    found: list[Detokenizer] = [*own]
    for spec in arguments.peer:
        layouts = [generator.config.tokens for generator in generators]
        named = [layout for layout in layouts if layout.tokenizer == spec.partition("=")[0]] or layouts
        found.append(open_peer_of(spec, named[0].image_size, device))
    return found


def _order(
    arguments: argparse.Namespace, settings: DecodeSettings, source: ImageGenerator, labels: Sequence[int]
) -> Order:
    compared = bool(arguments.compare)
    folder: Path = arguments.out / source.name if compared else arguments.out
    npz: Path | None = arguments.npz
    if npz is not None and compared:
        npz = npz.with_stem(f"{npz.stem}-{source.name}")
    strip = None
    if arguments.show_steps:
        strip = arguments.out / (f"steps-{source.name}.png" if compared else "steps.png")
    return Order(
        labels=list(labels),
        count=arguments.n,
        seed=arguments.seed,
        settings=settings,
        batch_size=arguments.batch_size,
        decoder={
            "num_steps": arguments.decoder_steps,
            "guidance_scale": arguments.decoder_guidance,
            "solver": arguments.decoder_solver,
        },
        folder=None if arguments.no_pictures else folder,
        npz=npz,
        strip=strip,
        classes=source.generator.classes,
        whole_batches=arguments.compile,
    )
