"""d_perc (Section 3.2): perceptual distances and where their published weights come from."""

from .classifier import Classifier, load_classifier
from .lpips import LPIPS
from .weights import export_lpips, load_lpips

__all__ = ["LPIPS", "Classifier", "export_lpips", "load_classifier", "load_lpips"]
