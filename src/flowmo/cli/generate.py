"""``flowmo generate``: generates pictures of classes by a generator and the tokenizer of its training (Stage 2).

Each picture has a seed of its own and is the same whatever the batch. --compare A B samples the same classes by two
generators side by side, each with its own tokenizer. A killed --npz goes on where it was when it is given again, and
under torchrun several processes share its pictures.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..devices import usable_device
from ..generation import PACKAGED_GENERATOR, DecodeSettings
from ..progress import Progress
from .arguments import common
from .arguments.fields import add_fields, add_flag, fields_of
from .arguments.peers import add_decoding_peer, refuse_our_settings
from .arguments.values import finite, positive, seed, steps
from .printing import print_json

DRAWING = {
    "num_steps": ("--steps", "steps of unmasking"),
    "schedule": ("--schedule", "how many stay masked"),
    "temperature": ("--temperature", "softmax temperature at the first step"),
    "final_temperature": ("--final-temperature", "softmax temperature at the last step"),
    "choice_noise": ("--choice-noise", "Gumbel noise on which tokens stay, falling to 0"),
    "guidance_scale": ("--guidance", "strength of the class; 1 is none and faster"),
    "guidance_decay": ("--guidance-decay", "how guidance rises over the steps; none is full from the first"),
    "order": ("--order", "which tokens stay: the surest, or coarse: of all tokens the first integer, then the second"),
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
    what = "with --npz, write no single pictures and no grid"
    parser.add_argument("--no-pictures", dest="no_images", action="store_true", help=what)
    add_flag(parser, "--show-steps", positive, "write K moments of the unmasking as a strip too", metavar="K")
    what = "side in pixels that pictures are brought to, such as that of those it was trained on (default: as decoded)"
    add_flag(parser, "--size", positive, what)
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_precision_arguments(parser)
    tokens = parser.add_argument_group("drawing tokens", "defaults are stored with the generator")
    add_fields(tokens, DecodeSettings(), DRAWING, stored=True)
    add_flag(tokens, "--seed", seed, "number of the first picture of a class; each has its own seed", 0)
    decoder = parser.add_argument_group("decoding", "defaults are stored with the tokenizer")
    add_flag(decoder, "--decoder-steps", steps, "steps of the tokenizer's decoder")
    add_flag(decoder, "--decoder-guidance", finite, "guidance of the decoder")
    common.add_solver_argument(decoder, "--decoder-solver")
    common.add_device_argument(decoder)


def run(arguments: argparse.Namespace) -> int:
    from ..pipelines.generate import GenerationRequest, generate_images, tokenizers_of  # takes seconds
    from ..training import World

    a = arguments
    decoder = {"num_steps": a.decoder_steps, "guidance_scale": a.decoder_guidance, "solver": a.decoder_solver}
    made = {"generators": a.compare or [a.generator], "count": a.n, "decoder": decoder}
    made["settings"] = {name: value for name, value in fields_of(a, DecodeSettings).items() if value is not None}
    if a.peer and not a.tokenizer:
        refuse_our_settings(a, "--peer", ("decoder_steps", "decoder_guidance", "decoder_solver"))
    tokenizers = partial(tokenizers_of, names=a.tokenizer, peers=a.peer)
    request = GenerationRequest(**fields_of(a, GenerationRequest) | made)
    progress = Progress(0)
    with World.join(str(usable_device(a.device))) as world:
        callbacks = (progress.say, progress.expect, progress.advance)
        found = generate_images(request, tokenizers, world, *callbacks)
    if found is None:
        return 0
    code, grid = progress.finish(), request.grid
    if a.json:
        result = {"generators": request.generators, "classes": found.classes, "pictures": found.images}
        written = [str(path) for path in found.written]
        print_json(result | {"written": written, "grid": str(grid) if grid else None})
    else:
        both = " by each of two generators" * bool(a.compare)
        print(f"{found.images} pictures of {len(found.classes)} classes{both}", *found.shown, sep="\n")
    return code
