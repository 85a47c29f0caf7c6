"""Stage 2: a masked transformer over the integers of a tokenizer, and its decoding (Section 3.5)."""

from .classes import find_class, first_name, read_class_names
from .config import GeneratorConfig, TokenLayout
from .decode import decode, guided
from .files import (
    PACKAGED_GENERATOR,
    generator_path,
    is_generator,
    load_generator,
    packaged_generator_of,
    read_generator_about,
    save_generator,
)
from .generate import generate, image_seed
from .groups import check_image_size, check_tokenizer, to_sequence, to_tokens
from .loss import MaskedLoss, Predict, draw_masks, masked_loss
from .model import NO_CLASS, Generator
from .schedule import SCHEDULES, masked_share, random_masks, tokens_left
from .settings import DecodeSettings

__all__ = [
    "NO_CLASS",
    "PACKAGED_GENERATOR",
    "SCHEDULES",
    "DecodeSettings",
    "Generator",
    "GeneratorConfig",
    "MaskedLoss",
    "Predict",
    "TokenLayout",
    "check_image_size",
    "check_tokenizer",
    "decode",
    "draw_masks",
    "find_class",
    "first_name",
    "generate",
    "generator_path",
    "guided",
    "image_seed",
    "is_generator",
    "load_generator",
    "masked_loss",
    "masked_share",
    "packaged_generator_of",
    "random_masks",
    "read_class_names",
    "read_generator_about",
    "save_generator",
    "to_sequence",
    "to_tokens",
    "tokens_left",
]
