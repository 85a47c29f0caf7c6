"""The transform start (O12): the code is linear, in order of importance, of any rate and any size."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowmo import FlowMo, samples
from flowmo.arch.transform import TransformEncoder, class_signs
from flowmo.config import FlowMoConfig, SamplerConfig, TransformConfig, TransformerConfig
from flowmo.data import center_crop, open_image, to_tensor
from flowmo.errors import ConfigError, DataError, ImageError
from flowmo.fit_transform import default_rates, errors, fit_steps, fit_transform, plan_class
from flowmo.image_utils import to_numpy
from flowmo.image_utils.scale import to_float, to_uint8
from flowmo.tiles import OVERLAP, TILE_SIDE, WHOLE_TOKENS, decode_tiled, encode_tiled, spans, tiles

BITS = 24


def small() -> FlowMoConfig:
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=8, width=32, depth=1, heads=2),
        decoder=TransformerConfig(patch_size=8, width=32, depth=2, heads=2),
        image_size=64,
        num_tokens=64,
        bits_per_token=BITS,
        bits_per_group=1,
        sampler=SamplerConfig(num_steps=1, rho=math.inf, guidance_scale=1.0),
        prediction="clean",
        modulation="shared",
        latent_positions="patches",
        transform=TransformConfig(8, default_rates(BITS), class_bits=2, num_components=48),
    )


def smooth(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """Images with the falling spectrum of photographs, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 1 / side
    shape = (count, 3, side, side // 2 + 1)
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**1.5
    pictures = np.fft.irfft2(spectrum, s=(side, side))
    return torch.from_numpy(np.tanh(pictures / pictures.std() / 2)).float()


@pytest.fixture(scope="module")
def model() -> FlowMo:
    images = smooth(64)
    return fit_transform(small(), lambda: images.split(16))


def psnr(a: Tensor, b: Tensor) -> float:
    return float((10 * torch.log10(4 / ((a - b) ** 2).flatten(1).mean(1))).mean())


def test_the_latent_is_what_the_bits_before_have_left(model: FlowMo) -> None:
    """Written out plainly, one patch and one bit after the other, in the class that codes the patch best."""
    images = smooth(1, seed=1)
    encoder = model.encoder
    assert isinstance(encoder, TransformEncoder)
    latent = encoder(images)[0]
    patterns = class_signs(2)
    for patch, found in zip(encoder.components(images)[0][::7], latent[::7], strict=True):
        tried = []
        for mean, vectors in zip(encoder.class_means, encoder.class_vectors, strict=True):
            rest, left, errors = patch - mean, [], []
            for vector in vectors:
                left.append(rest @ vector / vector.norm())
                rest = rest - vector * (1 if left[-1] > 0 else -1)
                errors.append(rest.square().sum())
            tried.append((errors[6] * errors[14] * errors[21], torch.stack(left)))  # of 22: a third, two thirds, all
        best = min(range(4), key=lambda c: tried[c][0])
        assert torch.equal(found[:2], patterns[best])
        torch.testing.assert_close(found[2:], tried[best][1], rtol=1e-3, atol=2e-3)


def test_classes_code_better_than_one(model: FlowMo) -> None:
    """Photographs, at the same bits: what the bits of the class cost comes back."""
    images = torch.stack([to_tensor(center_crop(open_image(p).image, 256)) for p in samples.paths()])
    parts = images.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 64, 64)
    config = small()
    assert config.transform is not None
    found = []
    for class_bits in (0, 3):
        of = replace(config, transform=replace(config.transform, class_bits=class_bits))
        one = fit_transform(of, lambda: parts.split(16))
        found.append(psnr(one.detokenize(one.tokenize(parts)), parts))
    assert found[1] > found[0] + 0.5, found


def test_bits_of_the_class_that_are_cut_leave_the_mean_of_those_that_are_left(model: FlowMo) -> None:
    linear = model.decoder.linear
    assert linear is not None
    code = torch.zeros(1, 1, BITS)
    code[..., 0] = 1.0
    said = linear.patches(code, torch.ones(1, 1) * linear.mixture(code))
    torch.testing.assert_close(said[0, 0], linear.class_means[2:].mean(0))
    code[..., 1] = -1.0
    torch.testing.assert_close(linear.patches(code, linear.mixture(code))[0, 0], linear.class_means[2])


def test_each_further_bit_makes_held_out_images_better(model: FlowMo) -> None:
    images = smooth(32, seed=1)
    whole = model.tokenize(images)
    rates = [3, 6, 9, 12, 18, BITS]
    found = [psnr(model.detokenize(whole.truncate(bits)), images) for bits in rates]
    assert all(b > a + 0.15 for a, b in itertools.pairwise(found)), found
    assert found[-1] > 18


def test_the_linear_map_is_the_least_squares_one(model: FlowMo) -> None:
    """No other map of the same bits of the 3 x 3 patches around comes nearer the images that it was fitted on."""
    images = smooth(64)
    code = torch.where(model.encode(images) > 0, 1.0, -1.0)
    linear = model.decoder.linear
    assert linear is not None
    best = float(((linear(code, (64, 64)) - images) ** 2).mean().detach())
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        other = linear.maps.weight + 0.003 * torch.randn(linear.maps.weight.shape, generator=generator)
        kept, linear.maps.weight.data = linear.maps.weight.data, other.detach()
        assert float(((linear(code, (64, 64)) - images) ** 2).detach().mean()) > best
        linear.maps.weight.data = kept


def test_a_cut_code_is_the_code_of_the_lower_rate(model: FlowMo) -> None:
    images = smooth(3, seed=2)
    assert model.tokenize(images).truncate(9).to_bytes() == model.tokenize(images, bits_per_token=9).to_bytes()
    assert model.tokenize(images, bits_per_token=9).bits_per_pixel == 9 / 64
    with pytest.raises(ConfigError, match="can be cut to"):
        model.tokenize(images).truncate(BITS + 1)


@pytest.mark.parametrize("size", [(8, 8), (64, 32), (40, 104)])
def test_images_of_any_size(model: FlowMo, size: tuple[int, int]) -> None:
    image = smooth(1, 104, seed=3)[..., : size[0], : size[1]]
    tokens = model.tokenize(image)
    assert tokens.num_tokens == size[0] * size[1] // 64
    assert model.detokenize(tokens).shape == image.shape


def test_a_token_depends_on_its_own_patch_alone(model: FlowMo) -> None:
    image = smooth(1, seed=4)
    changed = image.clone()
    changed[..., :8, :8] = 0.9
    same = (model.tokenize(image).indices == model.tokenize(changed).indices).all(-1)[0]
    assert not same[0]
    assert same[1:].all()


def test_the_transformer_learns_from_the_first_step(model: FlowMo) -> None:
    """A readout of zero, but behind open gates: it has a gradient, and after one step all blocks have."""
    model = FlowMo(model.config)
    images = smooth(2, seed=5)
    code = torch.where(model.encode(images) > 0, 1.0, -1.0)
    optimizer = torch.optim.SGD((p for p in model.decoder.parameters() if p.requires_grad), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        v = model.velocity(torch.randn_like(images), code, torch.ones(2))
        v.square().mean().backward()
        optimizer.step()
    blocks = [p for n, p in model.decoder.named_parameters() if "blocks" in n and n.endswith("mlp_in.weight")]
    assert all(p.grad is not None and float(p.grad.norm()) > 0 for p in blocks)


def test_a_learned_encoder_starts_as_the_transform_and_has_a_gradient(model: FlowMo) -> None:
    config = model.config
    assert config.transform is not None
    learned = FlowMo(replace(config, transform=replace(config.transform, learned_encoder=True)))
    learned.load_state_dict(model.state_dict(), strict=False)
    images = smooth(2, seed=6)
    assert torch.equal(learned.encode(images), model.encode(images))
    learned.quantize(learned.encode(images)).code.square().mean().backward()
    assert isinstance(learned.encoder, TransformEncoder)
    assert float(learned.encoder.readout.weight.grad.norm()) > 0  # type: ignore[union-attr]


def test_greedy_order_lowers_the_error_most_first() -> None:
    generator = torch.Generator().manual_seed(0)
    components = torch.randn(4000, 3, generator=generator) * torch.tensor([8.0, 2.0, 0.5])
    _, vectors = plan_class(components, 6, fit_steps(torch.randn(4000, generator=generator)))
    along = vectors.abs().argmax(dim=1).tolist()
    assert along[0] == 0
    assert along.count(0) > along.count(1) >= along.count(2)
    assert vectors[along.index(0)].norm() > 2 * vectors[along.index(1)].norm()


def test_one_bit_of_a_normal_component_leaves_what_theory_says() -> None:
    """The best code of one bit of N(0, 1) has the error 1 - 2 / pi."""
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert errors(x, math.sqrt(2 / math.pi), 1)[1] == pytest.approx(1 - 2 / math.pi, abs=0.005)


def test_too_few_patches_are_an_error() -> None:
    images = smooth(1)
    with pytest.raises(DataError, match="too few"):
        fit_transform(small(), lambda: [images[..., :8, :8]])


def test_spans_cover_evenly() -> None:
    for length in range(1, 200):
        found = spans(length)
        assert found[0][0] == 0
        assert found[-1][1] == length
        assert all(stop - start <= TILE_SIDE for start, stop in found)
        assert all(a[1] - b[0] >= OVERLAP for a, b in itertools.pairwise(found))


def test_small_images_are_one_tile() -> None:
    assert len(tiles(32, WHOLE_TOKENS // 32)) == 1
    assert len(tiles(33, WHOLE_TOKENS // 32)) > 1


def test_tiles_of_a_local_decoder_give_exactly_its_whole_image() -> None:
    """Where a pixel depends on its own token alone, tiles and blending must not be seen at all."""
    rows, columns, patch = 50, 70, 2
    code = torch.randn(2, rows * columns, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.zeros(2, 3, rows * patch, columns * patch)

    def decode(code: Tensor, noise: Tensor) -> Tensor:
        lattice = code.unflatten(1, (noise.shape[-2] // patch, noise.shape[-1] // patch)).permute(0, 3, 1, 2)
        return lattice.repeat_interleave(patch, 2).repeat_interleave(patch, 3)

    torch.testing.assert_close(decode_tiled(decode, code, noise, patch), decode(code, noise))


def test_bands_are_the_tiles_blended_over_the_whole_image() -> None:
    """Written out plainly: the sum of all tiles by their weights, over the sum of the weights."""
    rows, columns, patch = 61, 50, 2
    noise = torch.randn(2, 3, rows * patch, columns * patch, generator=torch.Generator().manual_seed(0))
    code = torch.zeros(2, rows * columns, 1)
    total, weights, levels = torch.zeros_like(noise), torch.zeros_like(noise), itertools.count()
    for level, tile in enumerate(tiles(rows, columns)):
        for y in range(tile.top * patch, tile.bottom * patch):
            for x in range(tile.left * patch, tile.right * patch):
                weight = 1.0
                for place, start, stop, length in (
                    (y, tile.top, tile.bottom, rows),
                    (x, tile.left, tile.right, columns),
                ):
                    up, down = place - start * patch + 0.5, stop * patch - place - 0.5
                    weight *= min(1.0, up / (OVERLAP * patch)) if start > 0 else 1.0
                    weight *= min(1.0, down / (OVERLAP * patch)) if stop < length else 1.0
                total[..., y, x] += weight * (noise[..., y, x] + level)
                weights[..., y, x] += weight
    assert level == 11
    whole = decode_tiled(lambda _, part: part + next(levels), code, noise, patch)
    torch.testing.assert_close(whole, total / weights, rtol=1e-5, atol=1e-5)


def test_a_token_is_of_the_tile_that_it_is_deepest_in() -> None:
    rows, columns = 61, 50
    plan, number = tiles(rows, columns), itertools.count()

    def encode(part: Tensor) -> Tensor:
        return torch.full((1, part.shape[2] * part.shape[3], 1), next(number))

    of = encode_tiled(encode, torch.zeros(1, 3, rows, columns), 1).reshape(rows, columns)

    def depth(place: int, start: int, stop: int, length: int) -> int:
        before = place - start if start else length
        return min(before, stop - 1 - place if stop < length else length)

    for y, x in itertools.product(range(rows), range(columns)):
        own = plan[int(of[y, x])]
        for axis, place, length in (("rows", y, rows), ("columns", x, columns)):
            spans_of = [(t.top, t.bottom) if axis == "rows" else (t.left, t.right) for t in (own, *plan)]
            depths = [depth(place, a, b, length) for a, b in spans_of if a <= place < b]
            assert spans_of[0][0] <= place < spans_of[0][1]
            assert depths[0] == max(depths)


def test_a_large_image_of_sides_that_are_no_patches_is_refused(model: FlowMo) -> None:
    for images in (smooth(1, side=512)[..., :509, :408], smooth(1, side=512)[..., :405]):
        with pytest.raises(ImageError, match="multiples of the patch size"):
            model.tokenize(images)


def test_a_learned_encoder_takes_large_images_in_tiles(model: FlowMo) -> None:
    config = replace(model.config, transform=replace(model.config.transform, learned_encoder=True))
    learned = FlowMo(config)
    learned.load_state_dict(model.state_dict(), strict=False)
    assert isinstance(learned.encoder, TransformEncoder)
    torch.nn.init.normal_(learned.encoder.readout.weight, std=0.1)
    images = smooth(1, side=512)[..., :408]
    learned.eval()
    indices = learned.tokenize(images).indices.unflatten(1, (64, 51))
    first = learned.tokenize(images[..., : 8 * TILE_SIDE, : 8 * TILE_SIDE]).indices.unflatten(1, (TILE_SIDE, TILE_SIDE))
    inner = TILE_SIDE - OVERLAP
    assert (indices[:, :inner, :inner] != first[:, :inner, :inner]).float().mean() < 1e-3
    plain = model.tokenize(images).indices.unflatten(1, (64, 51))
    assert (indices != plain).float().mean() > 0.01


def test_large_images_are_coded_in_tiles_and_decoded_in_bands_of_8_bits(model: FlowMo) -> None:
    images = smooth(1, side=512)[..., :408]
    assert len(tiles(64, 51)) > 1
    tokens = model.tokenize(images)
    whole = model.quantize(model.encode(images)).tokens
    assert whole is not None
    assert (tokens.indices != whole).float().mean() < 1e-4  # sums of another order may round to the other side
    exact = model.detokenize(tokens)
    assert torch.equal(model.detokenize(tokens, uint8=True), to_uint8(exact))
    assert [np.asarray(image).shape for image in tokens.to_pil(model)] == [(512, 408, 3)]


def test_an_image_of_its_own_size_is_padded_to_patches_and_nothing_else(model: FlowMo) -> None:
    pixels = to_uint8(smooth(2, side=96))[..., :91, :75]
    padded = torch.nn.functional.pad(to_float(pixels), (0, 5, 0, 5), mode="replicate")
    for given in (pixels, list(pixels.permute(0, 2, 3, 1).numpy()), [Image.fromarray(p) for p in to_numpy(pixels)]):
        tokens = model.tokenize(given, size="original")
        assert tokens.image_size == (96, 80)
        assert torch.equal(tokens.indices, model.tokenize(padded).indices)
    assert model.tokenize(pixels).image_size == (64, 64)
    assert model.tokenize(pixels, size=(40, 48)).image_size == (40, 48)
    assert model.tokenize([to_float(pixels[0])], size="original").image_size == (96, 80)
    with pytest.raises(ImageError, match="one at a time"):
        model.tokenize([pixels[0], pixels[1, :, :40]], size="original")
    with pytest.raises(ImageError, match='"original"'):
        model.tokenize(pixels, size="own")


def test_the_decoder_does_not_see_the_noise_at_the_start(model: FlowMo) -> None:
    weight = model.decoder.image_in.weight.unflatten(1, (8, 8, 6))
    assert not weight[..., :3].any()
    assert weight[..., 3:].any()


def test_more_bits_than_the_components_take_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few for 24 bits"):
        replace(small(), transform=TransformConfig(8, default_rates(BITS), class_bits=2, num_components=3))
