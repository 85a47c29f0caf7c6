"""``flowmo figure``: measures and draws a figure of the paper for your models and pictures.

The pictures are the first of the data's validation part, or of all data where there is none; picture number i is
sampled from seed SEED + i, so that the same command gives the same numbers. Each figure writes a plot and a JSON of
what it shows.
"""

from __future__ import annotations

import argparse

from ...viewing.plots import need_matplotlib
from ..arguments.subcommands import add_commands
from . import discoloration, rate_distortion_perception, sampler_grid, variance

FIGURES = {
    "variance": (variance, "Figure 8: where reconstructions from different seeds differ"),
    "rate-distortion-perception": (rate_distortion_perception, "Figure 9: quality by the norm of the starting noise"),
    "sampler-grid": (sampler_grid, "quality by steps, rho and guidance; the best can be stored with the weights"),
    "discoloration": (discoloration, "Figure 7: how far the mean colours of reconstructions are off"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings = {"dest": "figure", "metavar": "FIGURE", "required": True, "title": "figures"}
    list(add_commands(parser, FIGURES, help="which of the figures", **settings))


def run(arguments: argparse.Namespace) -> int:
    need_matplotlib()
    return FIGURES[arguments.figure][0].run(arguments)
