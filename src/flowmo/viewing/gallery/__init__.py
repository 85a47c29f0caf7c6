"""The gallery is one static page that shows reconstructions beside their originals and each other."""

from .page import Cell, GalleryRow, Pane, lossless, write_gallery

__all__ = ["Cell", "GalleryRow", "Pane", "lossless", "write_gallery"]
