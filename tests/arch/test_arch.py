"""The transformers (Section 3.1): patches, positions, shapes, and no weight that nothing depends on (B3-B7)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flowmo.arch import Condition
from flowmo.arch.block import attention
from flowmo.arch.patches import patchify, unpatchify
from flowmo.arch.rotary import axis_sizes, positions, rotary_table, rotate
from flowmo.config import FlowMoConfig, QuantizerConfig, TransformerConfig
from flowmo.errors import ConfigError, ImageError
from flowmo.flow import ThickTailedLogitNormal
from flowmo.presets import PRESETS, flowmo_mini_64, tiny
from flowmo.stages import LossWeights, draw, mode_matching_loss
from flowmo.tokenizer import SMALLEST_TRAINING_T, FlowMo

CPU = torch.device("cpu")


@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6))
def test_patches_round_trip(batch: int, rows: int, columns: int, patch: int) -> None:
    image = torch.arange(batch * 3 * rows * columns * patch**2, dtype=torch.float32)
    image = image.reshape(batch, 3, rows * patch, columns * patch)
    patches = patchify(image, patch)
    assert patches.shape == (batch, rows * columns, 3 * patch**2)
    assert torch.equal(unpatchify(patches, patch, rows * patch, columns * patch), image)


def test_order_inside_a_patch() -> None:
    """Patches in reading order; in a patch rows, then columns, then colours."""
    image = torch.randn(1, 3, 8, 12)
    patches = patchify(image, 4)
    assert torch.equal(patches[0, 4], image[0, :, 4:8, 4:8].permute(1, 2, 0).flatten())


@pytest.mark.parametrize(("height", "width"), [(30, 32), (32, 20), (0, 32)])
def test_sides_must_be_multiples_of_the_patch(height: int, width: int) -> None:
    with pytest.raises(ImageError, match="multiples of the patch size 8"):
        patchify(torch.zeros(1, 3, height, width), 8)


@pytest.mark.parametrize(("head_dim", "sizes"), [(64, (8, 28, 28)), (96, (12, 42, 42)), (32, (4, 14, 14))])
def test_axes_of_a_head(head_dim: int, sizes: tuple[int, int, int]) -> None:
    assert axis_sizes(head_dim) == sizes


@given(st.integers(1, 16).map(lambda n: 16 * n))
def test_axes_fill_any_head_in_pairs(head_dim: int) -> None:
    sizes = axis_sizes(head_dim)
    assert sum(sizes) == head_dim
    assert all(size > 0 and size % 2 == 0 for size in sizes)


def test_attention_depends_on_relative_positions_alone() -> None:
    rows, columns, size = 9, 11, 64
    table = rotary_table(rows, columns, 0, "diagonal", size, CPU)
    query, key = torch.randn(2, size)
    queries = rotate(query.expand(1, 1, rows * columns, size), table)[0, 0].reshape(rows, columns, size)
    keys = rotate(key.expand(1, 1, rows * columns, size), table)[0, 0].reshape(rows, columns, size)
    for down, right in ((0, 0), (2, 3), (1, 0), (0, 4)):
        products = (queries[: rows - down, : columns - right] * keys[down:, right:]).sum(-1)
        assert torch.allclose(products, products[0, 0].expand_as(products), atol=1e-3)
    assert not torch.allclose((queries[0, 0] * keys[2, 3]).sum(), (queries[0, 0] * keys[3, 2]).sum(), atol=1e-2)
    assert torch.allclose(queries.norm(dim=-1), query.norm().expand(rows, columns), atol=1e-4)


def test_ids_of_tokens() -> None:
    ids = positions(2, 3, 4, "diagonal")
    assert ids[:4].tolist() == [[i, i, i] for i in range(4)]  # latents first
    assert ids[4:].tolist() == [[0, r, c] for r in range(2) for c in range(3)]
    grid = positions(4, 8, 4, "grid")[:4]  # the centres of four quarters of the image
    assert grid.tolist() == [[0, 0.5, 1.5], [0, 0.5, 5.5], [0, 2.5, 1.5], [0, 2.5, 5.5]]
    same = positions(4, 4, 16, "grid")
    assert torch.equal(same[:16], same[16:])


def test_both_ways_to_attend_agree() -> None:
    """The two matrix products that half precision takes on a CPU are the fused kernel's function."""
    query, key, value = torch.randn(3, 2, 4, 24, 32)
    fused = attention(query, key, value, 0.25)
    half = attention(query.bfloat16(), key.bfloat16(), value.bfloat16(), 0.25).float()
    assert torch.allclose(half, fused, atol=0.03)
    long = key.repeat(1, 1, 60, 1), value.repeat(1, 1, 60, 1)  # the same mean, by the fused kernel
    half = attention(query.bfloat16(), long[0].bfloat16(), long[1].bfloat16(), 0.25).float()
    assert torch.allclose(half, fused, atol=0.03)
    assert torch.allclose(fused, (0.25 * query @ key.transpose(-1, -2)).softmax(-1) @ value, atol=1e-5)


OPTIONS = list(
    itertools.product(["velocity", "clean"], ["per_block", "shared"], ["zeros", "learned"], ["diagonal", "grid"])
)


def with_options(prediction: str, modulation: str, initial: str, places: str, **settings: object) -> FlowMoConfig:
    return replace(
        tiny(),
        prediction=prediction,  # type: ignore[arg-type]
        modulation=modulation,  # type: ignore[arg-type]
        initial_latent=initial,  # type: ignore[arg-type]
        latent_positions=places,  # type: ignore[arg-type]
        **settings,
    )


def dead_parameters(model: nn.Module, batch: int = 4) -> set[str]:
    """Parameters that one mode-matching step leaves without a gradient, wholly or in some row."""
    size = model.config.image_size
    image = torch.rand(batch, 3, size, size) * 2 - 1
    draws = draw(image, ThickTailedLogitNormal(), 0.0, torch.Generator().manual_seed(0))
    model.train()
    mode_matching_loss(model, image, draws, LossWeights()).total.backward()
    dead = set()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None or not gradient.flatten(1 if gradient.ndim > 1 else 0).any(-1).all():
            dead.add(name)
    return dead


@pytest.mark.parametrize("options", OPTIONS, ids="-".join)
def test_every_weight_matters(options: tuple[str, ...], lively: Callable[[nn.Module], nn.Module]) -> None:
    """No weight without a use (B5), and no row of one; c_0 = 0 gives its projection none (B4)."""
    dead = dead_parameters(lively(FlowMo(with_options(*options))))
    assert dead == ({"encoder.code_in.weight"} if options[2] == "zeros" else set())


@pytest.mark.parametrize("kind", ["fsq", "continuous"])
def test_every_weight_matters_to_other_quantizers(kind: str, lively: Callable[[nn.Module], nn.Module]) -> None:
    quantizer = QuantizerConfig(kind=kind)  # type: ignore[arg-type]
    model = FlowMo(replace(flowmo_mini_64(), quantizer=quantizer))
    assert dead_parameters(lively(model), batch=2) == set()


def test_the_first_steps_open_every_gate() -> None:
    """Gates start at zero (B6): the first step opens the image's, the second the code's, the third reaches all."""
    model = FlowMo(tiny())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dead = []
    for _ in range(3):
        optimizer.zero_grad()
        dead.append(dead_parameters(model))
        optimizer.step()
    assert dead[0] > dead[1] > dead[2] == {"encoder.code_in.weight"}


@pytest.mark.parametrize("name", PRESETS)
def test_the_encoder_knows_no_noise_level(name: str) -> None:
    with torch.device("meta"):
        model = FlowMo(PRESETS[name]())
    assert not [n for n, _ in model.encoder.named_parameters() if "time" in n or "modulation" in n]
    assert [n for n, _ in model.decoder.named_parameters() if "time" in n]


@pytest.mark.parametrize("places", ["diagonal", "grid"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48), (64, 40), (8, 8)])
def test_any_multiple_of_the_patch_is_a_size(
    height: int, width: int, places: str, lively: Callable[[nn.Module], nn.Module]
) -> None:
    model = lively(FlowMo(with_options("velocity", "per_block", "zeros", places)))
    image = torch.rand(2, 3, height, width) * 2 - 1
    tokens = model.tokenize(image)
    assert tokens.indices.shape == (2, 16, 2)
    again = model.detokenize(tokens, num_steps=2)
    assert again.shape == image.shape
    assert again.isfinite().all()


def test_latent_tokens_differ_though_they_start_alike(lively: Callable[[nn.Module], nn.Module]) -> None:
    """B4: by their positions alone."""
    model = lively(FlowMo(tiny()))
    latent = model.encode(torch.randn(1, 3, 32, 32).clamp(-1, 1))
    assert (latent[0].unsqueeze(0) - latent[0].unsqueeze(1)).norm(dim=-1).fill_diagonal_(1).min() > 1e-3


def test_null_condition_hides_the_code_and_its_mask(lively: Callable[[nn.Module], nn.Module]) -> None:
    code = torch.where(torch.randn(2, 16, 18) > 0, 1.0, -1.0)
    keep = torch.tensor([True, False])
    masked = Condition(code).keep_images(keep).channels()
    assert torch.equal(masked[0], torch.cat([code[0], torch.ones(16, 1)], dim=-1))
    assert not masked[1].any()
    model = lively(FlowMo(tiny()))
    x_t, t = torch.randn(2, 3, 32, 32), torch.tensor([0.7, 0.4])
    dropped, given_, null = (
        model.velocity(x_t, Condition(code).keep_images(keep), t),
        model.velocity(x_t, code, t),
        model.velocity(x_t, None, t),
    )
    assert torch.allclose(dropped[0], given_[0], atol=1e-5)
    assert torch.allclose(dropped[1], null[1], atol=1e-5)
    assert not torch.allclose(given_, null, atol=1e-2)


def test_clean_prediction_is_a_velocity_outside(lively: Callable[[nn.Module], nn.Module]) -> None:
    model = lively(FlowMo(replace(tiny(), prediction="clean")))
    x_t = torch.randn(3, 3, 32, 32)
    code = torch.where(torch.randn(3, 16, 18) > 0, 1.0, -1.0)
    t = torch.tensor([1.0, 0.5, 0.01])
    estimate = model.decoder(x_t, Condition(code).channels(), t)

    def expected(level: Tensor) -> Tensor:
        return (x_t - estimate) / level[:, None, None, None]

    assert torch.allclose(model.velocity(x_t, code, t), expected(t), atol=1e-4)
    model.train()
    assert torch.allclose(model.velocity(x_t, code, t), expected(t.clamp_min(SMALLEST_TRAINING_T)), atol=1e-4)
    assert SMALLEST_TRAINING_T == 0.05


def test_each_option_changes_the_function(lively: Callable[[nn.Module], nn.Module]) -> None:
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    found = []
    for options in OPTIONS:
        torch.manual_seed(0)
        model = lively(FlowMo(with_options(*options)))
        found.append(model.reconstruct(image, num_steps=2))
    for one, other in itertools.combinations(found, 2):
        assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 60, "heads": 7}, "not a multiple of heads"),
        ({"width": 60, "heads": 3}, "not a multiple of 16"),
        ({"depth": 0}, "depth must be at least 1"),
    ],
)
def test_transformers_that_cannot_be(settings: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TransformerConfig(**({"patch_size": 8, "width": 64, "depth": 2, "heads": 2} | settings))


def test_models_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="not a multiple of the encoder's patch size"):
        replace(tiny(), image_size=36)
    with pytest.raises(ConfigError, match="image_size must be at least 1"):
        replace(tiny(), image_size=0)
    with pytest.raises(ConfigError, match="square number of tokens"):
        replace(tiny(), num_tokens=15, latent_positions="grid")


def test_compiled_rotations_keep_sines_and_cosines_in_float32() -> None:
    """Of bf16 channels: rounded once, at the end, as where nothing is compiled; angles of far positions are large."""
    table = rotary_table(16, 16, 256, "diagonal", 64, torch.device("cpu"))
    x = torch.randn(1, 2, len(table), 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = rotate(x.double(), table.double())
    compiled = torch.compile(rotate, backend="eager", fullgraph=True)(x, table)
    assert compiled.dtype == torch.bfloat16
    assert ((compiled.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()
    assert float((compiled.float() - rotate(x, table).float()).abs().mean()) < 1e-4
