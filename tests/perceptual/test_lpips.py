"""The distance itself: against a numpy account of its definition, and on real photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from flowmo.errors import ConfigError, ImageError, WeightsError
from flowmo.perceptual import LPIPS, load_lpips
from flowmo.perceptual.sources import find, read_verified
from flowmo.perceptual.weights import SOURCES, read_arrays

# Per network of the published file: name, then (stride, padding, pooling before it) of each convolution, and the
# convolutions after which features are compared.
DEFINITION = {
    "vgg": ("VGG16_0", [(1, 1, 2 if i in (2, 4, 7, 10) else 0) for i in range(13)], (1, 3, 6, 9, 12)),
    "alex": ("AlexNet_0", [(4, 2, 0), (1, 2, 3), (1, 1, 3), (1, 1, 0), (1, 1, 0)], (0, 1, 2, 3, 4)),
}


def by_definition(network: str, a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS of two images (H, W, 3) in float64, from the published arrays, with numpy alone."""
    arrays = read_arrays(read_verified(find(SOURCES[network]), SOURCES[network]))
    prefix, layers, taps = DEFINITION[network]

    def features(x: np.ndarray) -> list[np.ndarray]:
        x = (x - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
        out = []
        for i, (stride, padding, pool) in enumerate(layers):
            if pool:
                x = sliding_window_view(x, (pool, pool), axis=(0, 1))[::2, ::2].max((-1, -2))
            kernel = arrays[f"{prefix}/Conv_{i}/kernel"].astype(np.float64)
            x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
            windows = sliding_window_view(x, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]  # h w in kh kw
            x = np.maximum(np.tensordot(windows, kernel, ((3, 4, 2), (0, 1, 2))) + arrays[f"{prefix}/Conv_{i}/bias"], 0)
            if i in taps:
                out.append(x / (np.sqrt((x**2).sum(-1, keepdims=True)) + 1e-10))
        return out

    pairs = zip(features(a), features(b), strict=True)
    return sum(((f - g) ** 2 @ arrays[f"NetLinLayer_{i}/Conv_0/kernel"][0, 0]).mean() for i, (f, g) in enumerate(pairs))


def blur(x: Tensor, sigma: float) -> Tensor:
    taps = torch.arange(-12, 13).float()
    kernel = torch.softmax(-(taps**2) / (2 * sigma**2), 0)
    x = torch.nn.functional.pad(x, (12, 12, 12, 12), mode="reflect")
    weight = kernel.expand(3, 1, 1, -1)
    x = torch.nn.functional.conv2d(x, weight, groups=3)
    return torch.nn.functional.conv2d(x, weight.transpose(2, 3), groups=3)


def test_equals_its_definition(network: LPIPS, photos: Tensor) -> None:
    a, b = photos[0:1, :, 20:60, 30:69], photos[1:2, :, 20:60, 30:69]
    expected = by_definition(network.network, *(x[0].permute(1, 2, 0).double().numpy() for x in (a, b)))
    assert network(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_vgg_is_the_imagenet_network(vgg: LPIPS) -> None:
    """Values of torchvision's ImageNet VGG16, quoted, not computed here."""
    first = vgg.stages[0][0]
    torch.testing.assert_close(first.weight[0, 0, 0], torch.tensor([-0.5537, 0.1427, 0.5290]), atol=5e-5, rtol=0)
    assert first.bias[0].item() == pytest.approx(0.4034, abs=5e-5)
    assert [len(lin) for lin in vgg.lins] == [64, 128, 256, 512, 512]


def test_grows_with_damage(network: LPIPS, photos: Tensor) -> None:
    photos = photos[:4]
    noise = torch.randn_like(photos)
    for damaged in (
        [blur(photos, sigma) for sigma in (0.5, 1, 2, 4)],
        [(photos + size / 127.5 * noise).clamp(-1, 1) for size in (4, 8, 16, 32)],
    ):
        distances = torch.stack([network(photos, d) for d in damaged])
        assert distances.shape == (4, 4)
        assert (distances.diff(dim=0) > 0).all(), distances
        assert (distances[0] > 0).all()


def test_identical_is_zero_and_order_does_not_matter(network: LPIPS, photos: Tensor) -> None:
    a, b = photos[:3], photos[3:]
    assert (network(a, a) == 0).all()
    torch.testing.assert_close(network(a, b), network(b, a), rtol=1e-6, atol=0)
    torch.testing.assert_close(network(a, b)[1:2], network(a[1:2], b[1:2]), rtol=1e-4, atol=0)


def test_unrelated_photographs_are_far(vgg: LPIPS, photos: Tensor) -> None:
    assert (vgg(photos, photos.roll(1, 0)) > 0.6).all()


def test_gradients_are_finite_where_features_vanish(network: LPIPS, photos: Tensor) -> None:
    flat = torch.full((1, 3, 64, 64), -1.0)
    photo = photos[:1, :, :64, :64]
    for a, b in ((flat, photo), (flat, flat), (photo, photo), (torch.zeros_like(flat), flat)):
        a = a.clone().requires_grad_()
        distance = network(a, b)
        distance.sum().backward()
        assert distance.isfinite().all()
        assert a.grad is not None
        assert a.grad.isfinite().all()


def test_vanishing_features_have_finite_gradients(alex: LPIPS, photos: Tensor) -> None:
    """Features whose squares underflow to 0: the published form has no gradient there, the smooth one has."""
    faint = {name: t.clone() for name, t in alex.state_dict().items()}
    faint["stages.0.0.weight"] *= 1e-30
    faint["stages.0.0.bias"].fill_(1e-30)
    network = LPIPS("alex", faint)
    gradients = []
    for smooth in (False, True):
        a = photos[:1, :, :40, :40].clone().requires_grad_()
        network.features(a, smooth)[0].sum().backward()
        gradients.append(a.grad)
    assert gradients[0].isnan().any()
    assert gradients[1].isfinite().all()
    a = photos[:1, :, :40, :40].clone().requires_grad_()
    network(a, photos[1:2, :, :40, :40]).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_following_the_gradient_brings_images_closer(vgg: LPIPS, photos: Tensor) -> None:
    target = photos[:1, :, :64, :64]
    x = blur(target, 2).requires_grad_()
    before = vgg(x, target)
    before.sum().backward()
    assert vgg(x - 20 * x.grad, target).item() < 0.95 * before.item()
    assert all(not p.requires_grad and p.grad is None for p in vgg.parameters())
    assert not vgg.training


def test_training_form_equals_the_exact_one(network: LPIPS, photos: Tensor) -> None:
    a = photos[:3].clone().requires_grad_()
    trained = network(a, photos[3:])
    assert trained.requires_grad
    torch.testing.assert_close(trained.detach(), network(photos[:3], photos[3:]), rtol=1e-5, atol=0)


def test_target_without_gradient_builds_no_graph(vgg: LPIPS, photos: Tensor) -> None:
    x = photos[:1, :, :32, :32]
    assert all(f.grad_fn is None for f in vgg.features(x, smooth=True))
    assert all(f.grad_fn is not None for f in vgg.features(x.clone().requires_grad_()))
    with torch.no_grad():
        assert vgg(x.clone().requires_grad_(), x).grad_fn is None


def test_it_trains_after_it_measured_without_gradients(photos: Tensor) -> None:
    """What the first call under autocast keeps serves all later ones, whatever mode that call was in."""
    network = load_lpips("alex")
    images = photos.roll(1, 0).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.inference_mode():
            measured = network(photos.roll(1, 0), photos)
        trained = network(images, photos)
    torch.testing.assert_close(trained.detach(), measured.clone(), atol=1e-3, rtol=1e-2)
    trained.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_bfloat16_autocast(network: LPIPS, photos: Tensor) -> None:
    a, b = photos[:, :, 32:96, 32:96], blur(photos, 1.5)[:, :, 32:96, 32:96].requires_grad_()
    exact = network(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(a, b)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact), "autocast had no effect"
    assert ((rounded - exact).abs().mean() / exact.mean()).item() < 0.01
    rounded.sum().backward()
    assert b.grad is not None
    assert b.grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(vgg: LPIPS, photos: Tensor) -> None:
    gpu = load_lpips("vgg").cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        distances = gpu(photos[:3].cuda(), photos[3:].cuda())
    torch.testing.assert_close(distances.cpu(), vgg(photos[:3], photos[3:]), rtol=0.01, atol=0)


def test_wrong_input_is_explained(network: LPIPS) -> None:
    smallest = {"vgg": 16, "alex": 31}[network.network]
    x = torch.rand(1, 3, smallest, smallest)
    assert network(x, 1 - x).item() > 0
    for a, b in (
        (x[..., 1:], x[..., 1:]),
        (x, x.expand(2, -1, -1, -1)),
        (x[:, :1], x[:, :1]),
        (x[0], x[0]),
        ((255 * x).byte(), (255 * x).byte()),
    ):
        with pytest.raises(ImageError):
            network(a, b)


def test_weights_of_another_network_are_refused(vgg: LPIPS, alex: LPIPS) -> None:
    with pytest.raises(WeightsError, match="not the weights of LPIPS 'alex'"):
        LPIPS("alex", vgg.state_dict())
    damaged = alex.state_dict()
    damaged["lins.0"] = -damaged["lins.0"]
    with pytest.raises(WeightsError, match="damaged"):
        LPIPS("alex", damaged)
    with pytest.raises(ConfigError, match="vgg, alex"):
        load_lpips("squeeze")  # type: ignore[arg-type]


def test_loading_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    load_lpips("alex")
    assert torch.equal(before, torch.get_rng_state())
