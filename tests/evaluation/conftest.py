"""Fixtures of these tests."""

from __future__ import annotations

from measured_models import cache, model, pictures, render_readme

__all__ = ["cache", "model", "pictures", "render_readme"]
