"""Images in whatever form a user has them -> tensors for a model, and back.

Everything that knows about pixels' ranges, layouts and sizes is in this folder: decoding of files (decode), crops and
the range [-1, 1] (crops, scale), sizes fitted to a model and back (fit), and batches made of any of them (convert).
Importing it does not import Pillow.
"""

from .convert import Images, Size, as_batch, as_images, to_numpy, to_pil

__all__ = ["Images", "Size", "as_batch", "as_images", "to_numpy", "to_pil"]
