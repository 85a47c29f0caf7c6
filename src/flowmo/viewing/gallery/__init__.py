"""The gallery is one static page that shows reconstructions beside their originals and each other."""

from .page import Cell, Pane, Picture, lossless, write_gallery

__all__ = ["Cell", "Pane", "Picture", "lossless", "write_gallery"]
