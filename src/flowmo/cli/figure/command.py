"""Which figure: one subcommand each."""

from __future__ import annotations

import argparse

from ...viewing.plots import need_matplotlib
from . import discoloration, rate_distortion_perception, sampler_grid, variance

FIGURES = {
    "variance": (variance, "Figure 8: where reconstructions from different seeds differ"),
    "rate-distortion-perception": (rate_distortion_perception, "Figure 9: quality by the norm of the starting noise"),
    "sampler-grid": (sampler_grid, "quality by steps, rho and guidance; the best can be stored with the weights"),
    "discoloration": (discoloration, "Figure 7: how far the mean colours of reconstructions are off"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(
        dest="figure", metavar="FIGURE", required=True, title="figures", help="which of the figures"
    )
    for name, (module, summary) in FIGURES.items():
        text = (module.__doc__ or "").partition(": ")[2].replace("`", "")
        figure = figures.add_parser(name, help=summary, description=text[:1].upper() + text[1:], allow_abbrev=False)
        module.add_arguments(figure)


def run(arguments: argparse.Namespace) -> int:
    need_matplotlib()
    return FIGURES[arguments.figure][0].run(arguments)
