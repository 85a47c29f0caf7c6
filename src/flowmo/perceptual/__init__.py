"""d_perc (Section 3.2): perceptual distances and where their published weights come from."""

from .lpips import LPIPS
from .weights import export_lpips, load_lpips

__all__ = ["LPIPS", "export_lpips", "load_lpips"]
