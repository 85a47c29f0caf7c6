"""The gallery: one static page that shows what reconstructions look like, beside their originals and each other."""

from .page import Cell, Pane, Picture, lossless, write_gallery

__all__ = ["Cell", "Pane", "Picture", "lossless", "write_gallery"]
