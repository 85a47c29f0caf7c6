"""Section 3.1: the two transformers and what they are made of."""

from .condition import Condition
from .decoder import Context, Decoder
from .encoder import Encoder
from .transform import LinearDecoder, TransformEncoder

__all__ = ["Condition", "Context", "Decoder", "Encoder", "LinearDecoder", "TransformEncoder"]
