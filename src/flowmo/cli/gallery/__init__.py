"""``flowmo gallery``: one page to look at pictures with, which opens in any browser from any disk and needs no network:
the originals, what our models make of them, image codecs and an RGB thumbnail at the same bytes. Two panes with a
divider to drag, zoom that follows in all of them, and of each picture the bytes, PSNR and LPIPS, by which it sorts."""

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
