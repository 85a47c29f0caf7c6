"""What is said where a model of one size codes another."""

from __future__ import annotations

from ..config import FlowMoConfig


def size_warning(size: tuple[int, int], config: FlowMoConfig) -> str | None:
    """Return a warning of what is lost at a (height, width) that a model without a transform was not trained at.

    None for another model or its own size.
    """
    own = config.image_size
    if config.transform is not None or size == (own, own):
        return None
    return (
        f"warning: --size {size[0]}x{size[1]}: the model was trained at {own}x{own} pixels, and its images are worse "
        "the further a size is from that. Leave out --size, or use a model with a transform"
    )
