"""Section 3.1: the two transformers and what they are made of."""

from .decoder import Decoder, masked_code, null_code
from .encoder import Encoder
from .transform import LinearDecoder, TransformEncoder

__all__ = ["Decoder", "Encoder", "LinearDecoder", "TransformEncoder", "masked_code", "null_code"]
