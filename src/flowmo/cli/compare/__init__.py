"""``flowmo compare``: models, image codecs and tokenizers of others at equal bytes, on the same pictures. Codecs are
given numbers of bytes and stand there at their best: of several scales and qualities the one nearest to the picture by
LPIPS (Alex). Writes comparison.json, table.md, a plot a measure, and the paper's Figure 1. A killed command goes on
where it was when it is given again."""

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
