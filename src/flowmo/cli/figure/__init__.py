"""``flowmo figure``: measures and draws a figure of the paper for your models and pictures. The pictures are the first
of the data's validation part, or of all data where there is none; picture number i is sampled from seed SEED + i, so
that the same command gives the same numbers. Each figure writes a plot and a JSON of what it shows."""

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
