"""``flowmo bench``: how fast a model codes, samples and trains on this machine, and what training takes on others."""

from __future__ import annotations

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
