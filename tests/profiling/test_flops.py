"""The counts of parameters and operations: exact figures of the paper's model, and what a real training step takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowmo.arch.rotary import rotary_table
from flowmo.config import FlowMoConfig, QuantizerConfig
from flowmo.generation import Generator
from flowmo.generation import presets as generation
from flowmo.perceptual.lpips import Network, build_stages
from flowmo.presets import PRESETS, flowmo_mini_64, tiny
from flowmo.profiling.flops import (
    Flops,
    flops_per_image,
    generator_cost,
    matrix_ceiling,
    parameter_count,
    utilisation_cost,
)
from flowmo.stages import LossWeights, draw, mode_matching_loss
from flowmo.stages.curriculum import noise_levels
from flowmo.stages.mode_matching import encode
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, World, spread
from flowmo.training.generator import GeneratorTrainConfig


class Counted(NamedTuple):
    encoder: int
    decoder: int
    training: int


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors of any size without memory; attention as the two matrix products that the counter knows."""
    rotary_table.cache_clear()
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):
        yield
    rotary_table.cache_clear()


def counted(config: FlowMoConfig, frozen: bool = False, recompute: bool = False) -> Counted:
    """What PyTorch counts for one image, while our networks and our loss run."""
    with shapes_only():
        model = FlowMo(config).train()
        model.encoder.requires_grad_(not frozen)
        spread(model, World(), recompute=recompute)
        image = torch.empty(1, 3, config.image_size, config.image_size)
        code = torch.empty(1, config.num_tokens, config.latent_dim)
        draws = draw(image, noise_levels(TrainConfig(), 0), 0.1, torch.Generator())
        with FlopCounterMode(display=False) as encoder:
            encode(model, image)
        with FlopCounterMode(display=False) as decoder:
            model.velocity(image, code, draws.t)
        with FlopCounterMode(display=False) as training:
            mode_matching_loss(model, image, draws, LossWeights()).total.backward()
    return Counted(encoder.get_total_flops(), decoder.get_total_flops(), training.get_total_flops())


def shallow(name: str) -> FlowMoConfig:
    """A preset at its full size and width with few blocks: first, middle and last are all there is to count."""
    config = PRESETS[name]()
    encoder, decoder = replace(config.encoder, depth=2), replace(config.decoder, depth=3)
    return replace(config, encoder=encoder, decoder=decoder)


def test_operations_of_the_papers_model() -> None:
    """Of FlowMo-Lo at 256 x 256, as they were counted by hand from its layers before PyTorch counted them."""
    flops = flops_per_image(PRESETS["flowmo-lo"]())
    assert flops == Flops(855_552_032_768, 3_603_711_098_880, 13_377_026_752_512, 4_458_020_732_928, 120_267_472_896)


@pytest.mark.parametrize("name", PRESETS)
def test_operations_are_those_that_pytorch_counts(name: str) -> None:
    config = shallow(name)
    flops = flops_per_image(config)
    assert Counted(flops.encoder, flops.decoder, flops.training) == counted(config)


@pytest.mark.parametrize("kind", ["fsq", "continuous"])
def test_operations_with_the_other_quantizers(kind: str) -> None:
    config = replace(tiny(), quantizer=QuantizerConfig(kind=kind))  # type: ignore[arg-type]
    flops = flops_per_image(config)
    assert Counted(flops.encoder, flops.decoder, flops.training) == counted(config)


def test_operations_with_a_frozen_encoder() -> None:
    frozen = flops_per_image(flowmo_mini_64(), encoder_frozen=True)
    assert frozen.training == counted(flowmo_mini_64(), frozen=True).training


def test_operations_of_recomputed_blocks() -> None:
    """PyTorch stops recomputing a block where nothing more is needed, for some before the last product."""
    config = shallow("flowmo-lo")
    flops = flops_per_image(config)
    more = counted(config, recompute=True).training - flops.training
    assert 0.85 * flops.recomputed < more <= flops.recomputed


@pytest.mark.parametrize(("network", "size"), [("vgg", 256), ("alex", 256), ("vgg", 64), ("alex", 40)])
def test_operations_of_the_perceptual_networks(network: Network, size: int) -> None:
    with shapes_only(), FlopCounterMode(display=False) as counter:
        stages = build_stages(network).requires_grad_(False)

        def last(x: Tensor) -> Tensor:
            for stage in stages:
                x = stage(x)
            return x

        with torch.no_grad():
            last(torch.empty(1, 3, size, size))
        last(torch.empty(1, 3, size, size, requires_grad=True)).sum().backward()
    config = replace(tiny(), image_size=size)
    assert flops_per_image(config, network).perceptual == counter.get_total_flops()
    assert flops_per_image(config, network, 0.5).perceptual == counter.get_total_flops() // 2
    assert flops_per_image(config, None).perceptual == 0
    larger = replace(config, image_size=2 * size)
    assert flops_per_image(larger, network, perceptual_crop=size).perceptual == counter.get_total_flops()
    assert flops_per_image(config, network, perceptual_crop=2 * size).perceptual == counter.get_total_flops()


def test_parameters_are_counted_without_memory() -> None:
    assert parameter_count(tiny()) == sum(p.numel() for p in FlowMo(tiny()).parameters())
    assert parameter_count(PRESETS["flowmo-lo"]()) > 850e6


@pytest.mark.parametrize("name", ["flowmo-mini-hi", "flowmo-mini-lo"])
def test_small_models_of_256_pixels_are_as_small_as_planned(name: str) -> None:
    config = PRESETS[name]()
    assert parameter_count(config) == pytest.approx(28e6, rel=0.01)
    assert flops_per_image(config).training < 0.17e12


def test_utilisation_counts_the_crops_that_are_trained_on() -> None:
    cropped, _ = utilisation_cost(tiny(), TrainConfig(crop_size=16), torch.device("cpu"))
    assert cropped == flops_per_image(replace(tiny(), image_size=16)).training < flops_per_image(tiny()).training


def test_a_generator_takes_six_operations_a_weight_and_token_and_attention() -> None:
    """Its class stands before 512 tokens, and the readout leaves it out."""
    model = Generator(generation.tiny())
    linear = {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    readout, attention = linear.pop("readout"), 4 * 513**2 * 64
    expected = 6 * 513 * sum(linear.values()) + 6 * 512 * readout + 3 * len(model.blocks) * attention
    cost, ceiling = generator_cost(model, GeneratorTrainConfig(precision="fp32"), torch.device("cpu"), 0)
    assert (cost, ceiling) == (expected, matrix_ceiling("cpu", torch.float32))


def test_the_ceiling_is_above_what_a_network_reaches() -> None:
    model = tiny()
    operations, ceiling = utilisation_cost(model, TrainConfig(precision="fp32"), torch.device("cpu"))
    assert operations == flops_per_image(model).training
    freezing = TrainConfig(precision="fp32", freeze_encoder_after=64)
    after = [utilisation_cost(model, freezing, torch.device("cpu"), seen)[0] for seen in (0, 63, 64)]
    assert after == [operations, operations, flops_per_image(model, encoder_frozen=True).training]
    assert ceiling == matrix_ceiling("cpu", torch.float32) > 1e9
