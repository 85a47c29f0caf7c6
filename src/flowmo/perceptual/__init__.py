"""Perceptual distances, d_perc (Section 3.2), and where their published weights come from."""

from .classifier import Classifier, load_classifier
from .distances import LogitDistance, load_distance
from .lpips import LPIPS
from .resnet import ResNet50, load_resnet50
from .weights import export_lpips, load_lpips, lpips_or_note

__all__ = [
    "LPIPS",
    "Classifier",
    "LogitDistance",
    "ResNet50",
    "export_lpips",
    "load_classifier",
    "load_distance",
    "load_lpips",
    "load_resnet50",
    "lpips_or_note",
]
