"""Pictures in and out: data sets for training, files for the commands, crops, and sizes fitted to the model."""

from .crops import center_crop, random_crop, shorter_side_to, to_image, to_tensor, to_uint8
from .decode import IMAGE_SUFFIXES, MAX_PIXELS, decode
from .fit import FITS, Fit, fit_picture, kept_size, restore_size
from .inputs import Picture, find_pictures, open_picture
from .loader import Batch, BatchLoader
from .sources import ArraySource, FileSource, ImageSource, ParquetSource, image_files, open_images

__all__ = [
    "FITS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ArraySource",
    "Batch",
    "BatchLoader",
    "FileSource",
    "Fit",
    "ImageSource",
    "ParquetSource",
    "Picture",
    "center_crop",
    "decode",
    "find_pictures",
    "fit_picture",
    "image_files",
    "kept_size",
    "open_images",
    "open_picture",
    "random_crop",
    "restore_size",
    "shorter_side_to",
    "to_image",
    "to_tensor",
    "to_uint8",
]
