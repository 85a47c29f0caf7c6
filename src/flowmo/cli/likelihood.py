"""``flowmo likelihood``: measures how likely a model finds pictures, by the reverse ODE to noise (Section 3.4).

They are given each picture's own code, the code of the next picture, or no code. Pictures are dequantized with uniform
noise as wide as an 8-bit level, and noised to the first level where that is higher; the divergence is estimated with
random probes, whose standard error is given. It writes MODEL-likelihood.json with every picture's numbers.
"""

from __future__ import annotations

import argparse

from ..evaluation.results import model_stem
from ..experiments.figure_run import Drawn
from ..experiments.likelihood import (
    CONDITIONS,
    LikelihoodSettings,
    default_start,
    differences_in_words,
    likelihood_content,
    likelihood_table,
    model_likelihood,
)
from ..flow.likelihood import DEQUANTIZATION_T
from ..progress import Progress
from ..tokenizer import SMALLEST_TRAINING_T
from .arguments import common
from .arguments.fields import add_fields, add_flag, fields_of
from .arguments.values import finite, seed
from .figure import shared
from .printing import print_table

ODE = {
    "num_steps": ("--steps", "steps of the decoder"),
    "solver": ("--solver", "of the equation"),
    "rho": ("--rho", "where the steps lie: 1 evenly, more nearer the picture"),
    "probes": ("--probes", "of the divergence; exact takes the whole trace, for very small pictures"),
    "num_probes": ("--num-probes", "probes of every picture and step; two at least give a standard error"),
}
"""Flags of LikelihoodSettings."""
PROTOCOL = "reverse ODE, uniform dequantization, unguided"


CONDITION = (
    "what the picture is likely given: its own code, that of the next picture, the null condition (default: all three)"
)
START = (
    "noise level that the integral begins at (default: the lowest that the model was trained at: "
    f"{DEQUANTIZATION_T:.4f}, that of dequantization, or {SMALLEST_TRAINING_T:g} of a model that predicts images)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    shared.add_data_arguments(parser, count=32)
    parser.add_argument("--condition", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), help=CONDITION)
    ode = parser.add_argument_group("the ODE")
    add_fields(ode, LikelihoodSettings(), ODE)
    add_flag(ode, "--start", finite, START, metavar="T")
    add_flag(ode, "--seed", seed, "dequantization and probes: picture i has seed N + i", 0)
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_model_arguments(parser, flag=False)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    run = shared.open_run(a, "likelihood", f"{model_stem(a.model)}-likelihood", plotted=False)
    model, images = run.models[0], run.images
    start = default_start(model) if a.start is None else a.start
    settings = LikelihoodSettings(**fields_of(a, LikelihoodSettings) | {"start": start})
    conditions = list(dict.fromkeys(a.condition))
    progress = Progress(len(images) * len(conditions))
    found = model_likelihood(model, images, run.seeds, settings, conditions, a.batch_size, progress.advance)
    progress.finish()
    content = likelihood_content(settings, found, run.first.names, images[0].numel())
    seed = f"dequantization and probes of picture i from seed {a.seed} + i"
    code = shared.finish(a, run, Drawn(content), protocol=PROTOCOL, seed=seed)
    if not a.json:
        print_table(*likelihood_table(content))
        for line in differences_in_words(content):
            print(line)
        what = "8-bit pictures" if start <= DEQUANTIZATION_T else f"pictures with noise of level {start:g}"
        print(f"\n{len(images)} {what}; {run.request.result.name} is in {a.out}")
    return code
