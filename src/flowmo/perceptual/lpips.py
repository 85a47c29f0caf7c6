"""d_perc of Stage 1A (Eq. 6, FACTS A11) and the LPIPS of the tables (FACTS E4): LPIPS v0.1 with VGG16 or AlexNet.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric". The networks are plain torch, so
that a training machine needs nothing else; the weights are always the published ones (weights.py), never random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ImageError, WeightsError

Network = Literal["vgg", "alex"]

# Mean and deviation of ImageNet for pixels in [-1, 1], rounded as in the published metric.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

# The smallest side that leaves a pixel after the last pooling.
_SMALLEST = {"vgg": 16, "alex": 31}


class LPIPS(nn.Module):
    """Learned perceptual distance of two images, frozen; gradients flow to the images alone.

    network: ``vgg`` for training, ``alex`` for reporting.
    tensors: the weights, named as ``state_dict`` names them; any floating dtype, kept in float32.
    Raises WeightsError when they are not those of this network.
    """

    shift: Tensor  # subtracted from an image, (1, 3, 1, 1)
    scale: Tensor  # by which it is then divided, (1, 3, 1, 1)

    def __init__(self, network: Network, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        check_network(network)
        self.network: Network = network
        with torch.device("meta"):  # neither memory nor random numbers for values that are replaced at once
            self.stages = build_stages(network)
            self.lins = nn.ParameterList(torch.empty(_width(stage)) for stage in self.stages)
        try:
            self.load_state_dict({name: _laid_out(tensor.float()) for name, tensor in tensors.items()}, assign=True)
        except RuntimeError as error:
            raise WeightsError(f"these are not the weights of LPIPS {network!r}: {error}") from None
        if not all(p.isfinite().all() for p in self.parameters()) or any((lin < 0).any() for lin in self.lins):
            raise WeightsError(f"the weights of LPIPS {network!r} are damaged: infinite, or negative in the last layer")
        self._rounded: dict[torch.dtype, nn.ModuleList] = {}  # the stages as autocast rounds them
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances (B,), float32, at least 0, of a and b, both float (B, 3, H, W) in [-1, 1].

        It may run under bfloat16 autocast. The graph of an image that needs no gradient is never built.
        Raises ImageError for other shapes or for a side below 16 (vgg) or 31 (alex) pixels.
        """
        if a.shape != b.shape:
            raise ImageError(f"LPIPS compares images of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
        smooth = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        distances = []
        for f, g, lin in zip(self._features(a, smooth), self._features(b, smooth), self.lins, strict=True):
            distances.append(((f - g).square() * lin).sum(-1).mean((1, 2)))  # B h w C
        return torch.stack(distances).sum(0)

    def features(self, image: Tensor, smooth: bool | None = None) -> list[Tensor]:
        """Return the five feature maps (B, C, h, w) of an image, float32, each pixel of unit length over its channels.

        smooth: normalise in the form that has a gradient everywhere; by default only if ``image`` needs one.
        """
        return [f.permute(0, 3, 1, 2) for f in self._features(image, smooth)]

    def _features(self, image: Tensor, smooth: bool | None) -> list[Tensor]:
        """Return :meth:`features` as B h w C, with the channels of a pixel together in memory: much faster on a CPU."""
        self._check(image)
        needs_grad = torch.is_grad_enabled() and image.requires_grad
        features = []
        with torch.set_grad_enabled(needs_grad):
            x = ((image.float() - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
            for stage in self._stages(image.device):
                x = stage(x)
                pixels = x.permute(0, 2, 3, 1).float()
                features.append(_unit_length(pixels, needs_grad if smooth is None else smooth))
        return features

    def _stages(self, device: torch.device) -> nn.ModuleList:
        """Return the stages in the dtype of autocast, if it is on: rounded once, not in every call."""
        if not torch.is_autocast_enabled(device.type):
            return self.stages
        dtype = torch.get_autocast_dtype(device.type)
        if dtype not in self._rounded:
            with torch.inference_mode(False):  # what is made in that mode could not be trained through later
                with torch.device("meta"):
                    rounded = build_stages(self.network)
                weights = {name: w.to(dtype) for name, w in self.stages.state_dict().items()}
                rounded.load_state_dict(weights, assign=True)
            self._rounded[dtype] = rounded.requires_grad_(False)
        return self._rounded[dtype]

    def _apply(self, function: Callable[..., Any], recurse: bool = True) -> LPIPS:
        """Move or convert the module, as ``to`` does; what was rounded before is forgotten."""
        self._rounded.clear()
        return super()._apply(function, recurse)

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ImageError(f"LPIPS needs float images (B, 3, H, W), got {image.dtype} {tuple(image.shape)}")
        smallest = _SMALLEST[self.network]
        if min(image.shape[2:]) < smallest:
            raise ImageError(
                f"LPIPS {self.network!r} needs images of at least {smallest} x {smallest} pixels, got "
                f"{image.shape[2]} x {image.shape[3]}; enlarge them first"
            )


def check_network(network: str) -> None:
    """Raise ConfigError unless ``network`` names an LPIPS network."""
    if network not in get_args(Network):
        raise ConfigError(f"the LPIPS network must be one of {', '.join(get_args(Network))}; got {network!r}")


def build_stages(network: Network) -> nn.ModuleList:
    """Return the convolutions of a network in five stages, each ending at a feature map that is compared."""
    return nn.ModuleList(_vgg16() if network == "vgg" else _alexnet())


def _laid_out(weights: Tensor) -> Tensor:
    """Return weights with the channels of a pixel together in memory, where they are a convolution's."""
    return weights.contiguous(memory_format=torch.channels_last) if weights.ndim == 4 else weights


def _unit_length(x: Tensor, smooth: bool) -> Tensor:
    """Return x / |x| over the last axis.

    The published form has no gradient where x is 0, as in flat dark areas; the smooth one has.
    """
    squares = x.square().sum(-1, keepdim=True)
    return x * (squares + 1e-10).rsqrt() if smooth else x / (squares.sqrt() + 1e-10)


def _vgg16() -> list[nn.Sequential]:
    """Return the convolutions of VGG16, cut after relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""
    stages: list[nn.Sequential] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if stages else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        stages.append(nn.Sequential(*layers))
    return stages


def _alexnet() -> list[nn.Sequential]:
    """Return the convolutions of AlexNet (the one-tower variant), cut after each ReLU."""
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True)),
        nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True)),
        nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
    ]


def _width(stage: nn.Module) -> int:
    return [m for m in stage.modules() if isinstance(m, nn.Conv2d)][-1].out_channels
