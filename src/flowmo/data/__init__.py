"""Pictures in and out: data sets for training, files for the commands, crops, and sizes fitted to the model."""

from .crops import center_crop, random_crop, shorter_side_to, to_image, to_tensor, to_uint8
from .decode import IMAGE_SUFFIXES, decode
from .sources import ArraySource, FileSource, ImageSource, ParquetSource, image_files, open_images

__all__ = [
    "IMAGE_SUFFIXES",
    "ArraySource",
    "FileSource",
    "ImageSource",
    "ParquetSource",
    "center_crop",
    "decode",
    "image_files",
    "open_images",
    "random_crop",
    "shorter_side_to",
    "to_image",
    "to_tensor",
    "to_uint8",
]
