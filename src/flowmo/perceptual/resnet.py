"""ResNet-50, whose logits are d_perc of Stage 1B as published (Section 3.3, Eq. 11; A.2; D2).

He et al., "Deep Residual Learning", with the stride in the 3 x 3 convolution. Plain torch; tensors are named as
torchvision names them, so that its files of weights, or any in its format, are read as they are.
"""

from __future__ import annotations

import io
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ImageError, WeightsError
from .sources import WeightSource, find, read_verified

SOURCE = WeightSource(
    title="the ImageNet classifier ResNet-50 (torchvision's IMAGENET1K_V1)",
    file="resnet50-0676ba61.pth",
    sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    size=102530333,
    address="https://download.pytorch.org/models/resnet50-0676ba61.pth",
)

SIDE = 224
# Mean and deviation of ImageNet's pixels in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class ResNet50(nn.Module):
    """ResNet-50, frozen; gradients flow to the images alone.

    Images are float (B, 3, H, W) in [-1, 1], of any size: the whole image is resized to ``side`` x ``side``, bilinear
    and antialiased, as published with 224.
    """

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            layers = []
            for i in range(blocks):
                layers.append(_Bottleneck(channels, width, stride=2 if stage > 1 and i == 0 else 1))
                channels = 4 * width
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, 1000)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, 1000), float32, of ImageNet's classes in the order of their WordNet names.

        Raises ImageError for other shapes.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ImageError(f"ResNet-50 needs float images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        x = (images.float() + 1) / 2
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        x = (x - x.new_tensor(_MEAN).view(3, 1, 1)) / x.new_tensor(_DEVIATION).view(3, 1, 1)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3))).float()

    def train(self, mode: bool = True) -> ResNet50:
        """Leave the network in evaluation mode: its normalisation statistics are part of the weights."""
        return super().train(False)


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def load_resnet50(path: Path | None = None, side: int = SIDE) -> ResNet50:
    """Return ResNet-50 with its weights, on the CPU, frozen, float32.

    path: any weights in torchvision's format, ``.pth`` or ``.safetensors``, taken as they are. Without it torchvision's
    own are looked for in the cache (FLOWMO_CACHE), then fetched below FLOWMO_WEIGHTS_URL, and known by their checksum.
    Raises WeightsError when there are none, or when tensors are missing, foreign or of other shapes.
    """
    file = find(SOURCE, path)
    try:
        if file.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(file)
        else:
            content = file.read_bytes() if path is not None else read_verified(file, SOURCE)
            tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a broken file can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{file} is not a file of weights that can be read: {reason[:120]}") from None
    return _with_weights(file, tensors, side)


def _with_weights(file: Path, tensors: object, side: int) -> ResNet50:
    with torch.device("meta"):  # neither memory nor random numbers for values that are replaced at once
        network = ResNet50(side)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items() if "num_batches" not in name}
    given = tensors if isinstance(tensors, dict) else {}
    found = {str(n): t for n, t in given.items() if isinstance(t, Tensor) and "num_batches" not in str(n)}
    wrong = sorted(n for n in {*wanted, *found} if n not in wanted or n not in found or found[n].shape != wanted[n])
    if wrong:
        raise WeightsError(
            f"{file} does not hold a ResNet-50 in torchvision's format: {len(wrong)} of its tensors are missing, "
            f"foreign or of another shape, for example {wrong[0]}"
        )
    counts = {name: torch.zeros((), dtype=torch.long) for name in network.state_dict() if "num_batches" in name}
    network.load_state_dict({name: tensor.float() for name, tensor in found.items()} | counts, assign=True)
    return network.requires_grad_(False).eval()
