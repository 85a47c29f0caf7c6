"""Pictures in and out: data sets for training, files for the commands, crops, and sizes fitted to the model."""

from ..image_utils.crops import adm_crop, center_crop, random_crop, shorter_side_to, to_image, to_tensor
from ..image_utils.decode import IMAGE_SUFFIXES, MAX_PIXELS, decode
from ..image_utils.fit import FITS, Fit, fit_image, kept_size, restore_size, whole_size
from ..image_utils.scale import to_float, to_uint8
from .batch import Batch
from .batches import InputBatch, image_batches
from .changes import DataFingerprint, changes, fingerprint_of
from .hugging_face import HuggingFaceSource
from .inputs import ImageList, NamedImage, find_images, leave_out_results, open_image
from .loader import BatchLoader
from .naming import class_labels, find_token_files, output_stems, relative_names, safe_name
from .opening import open_images, open_split
from .parquet import ParquetSource
from .reading import Images, SpreadImages, each_image, read_first, read_images, read_several
from .sources import ArraySource, FileSource, ImageSource, SplitError, class_names, image_files
from .tars import TarSource, read_labels

__all__ = [
    "FITS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ArraySource",
    "Batch",
    "BatchLoader",
    "DataFingerprint",
    "FileSource",
    "Fit",
    "HuggingFaceSource",
    "ImageList",
    "ImageSource",
    "Images",
    "InputBatch",
    "NamedImage",
    "ParquetSource",
    "SplitError",
    "SpreadImages",
    "TarSource",
    "adm_crop",
    "center_crop",
    "changes",
    "class_labels",
    "class_names",
    "decode",
    "each_image",
    "find_images",
    "find_token_files",
    "fingerprint_of",
    "fit_image",
    "image_batches",
    "image_files",
    "kept_size",
    "leave_out_results",
    "open_image",
    "open_images",
    "open_split",
    "output_stems",
    "random_crop",
    "read_first",
    "read_images",
    "read_labels",
    "read_several",
    "relative_names",
    "restore_size",
    "safe_name",
    "shorter_side_to",
    "to_float",
    "to_image",
    "to_tensor",
    "to_uint8",
    "whole_size",
]
