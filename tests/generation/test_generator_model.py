"""The transformer over tokens: its size, what it sees, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from flowmo.errors import ConfigError, WeightsError
from flowmo.generation import (
    NO_CLASS,
    DecodeSettings,
    Generator,
    GeneratorConfig,
    TokenLayout,
    draw_masks,
    generate,
    load_generator,
    masked_loss,
    read_generator_about,
    save_generator,
)
from flowmo.generation.presets import maskgit_397m, maskgit_mini, maskgit_plain
from flowmo.presets import tiny as tiny_tokenizer
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model

SMALL = GeneratorConfig(
    32, 2, 2, 3, bits_per_group=3, tokens=TokenLayout("0000002a", num_tokens=4, bits_per_token=6, bits_per_group=6)
)


def parameters(config: GeneratorConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Generator(config).parameters())


@pytest.fixture(params=["integer", "token"])
def generator(request: pytest.FixtureRequest, lively: Callable[[nn.Module], nn.Module]) -> Generator:
    model = Generator(replace(SMALL, place=request.param), ["a", "b", "c"])
    lively(model)
    return model


def test_the_papers_size() -> None:
    """397 M: 14 + 1 + 14 blocks of width 1024 with 14 long skips; 28 plain blocks are 355 M (F1)."""
    config = maskgit_397m()
    assert (config.width, config.depth, config.sequence_length, config.vocabulary) == (1024, 28, 512, 512)
    with torch.device("meta"):
        model = Generator(config)
    assert len(model.blocks) == 29
    assert [i for i, block in enumerate(model.blocks) if block.skip is not None] == list(range(15, 29))
    assert sum(p.numel() for p in model.parameters()) == 397_178_368
    assert parameters(maskgit_plain()) == 355_210_752
    assert 4_500_000 < parameters(maskgit_mini(TokenLayout(num_tokens=64))) < 4_700_000


def test_a_token_as_one_place_is_read_as_its_signs(lively: Callable[[nn.Module], nn.Module]) -> None:
    """A third of the places of the same integers, and 0 for what is masked (MaskBit)."""
    layout = TokenLayout(num_tokens=5, bits_per_token=9, bits_per_group=1)
    model = Generator(GeneratorConfig(32, 2, 2, 3, bits_per_group=3, tokens=layout, place="token"))
    lively(model)
    assert model.positions.shape == (6, 32)
    read: list[torch.Tensor] = []
    model.token_embedding.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    tokens = torch.randint(8, (2, 15))
    mask = torch.rand(2, 15) < 0.5
    logits = model(tokens, torch.tensor([0, 2]), mask)
    assert logits.shape == (2, 15, 8)
    signs = read[0].unflatten(2, (3, 3)).flatten(1, 2)  # B 15 3
    assert (signs[mask] == 0).all()
    assert torch.equal(((signs[~mask] + 1) / 2 * torch.tensor([1, 2, 4])).sum(-1).long(), tokens[~mask])
    with pytest.raises(ConfigError, match="leave out place=token"):
        GeneratorConfig(
            32, 2, 2, 3, bits_per_group=9, tokens=replace(layout, bits_per_group=9, num_codes=7), place="token"
        )
    assert maskgit_mini(replace(layout, bits_per_group=9, num_codes=7)).place == "integer"


def test_long_skips_join_mirror_images() -> None:
    model = Generator(replace(SMALL, depth=4))
    outputs: list[torch.Tensor] = []
    read: dict[int, torch.Tensor] = {}
    for i, block in enumerate(model.blocks):

        def note(module: nn.Module, inputs: tuple, output: torch.Tensor, i: int = i) -> None:
            outputs.append(output)
            if inputs[1] is not None:
                read[i] = inputs[1]

        block.register_forward_hook(note)
    model(torch.zeros(1, 8, dtype=torch.int64), torch.tensor([0]), torch.ones(1, 8, dtype=torch.bool))
    assert set(read) == {3, 4}
    assert read[3] is outputs[1]
    assert read[4] is outputs[0]


def test_masked_values_are_not_seen_and_all_else_is(generator: Generator) -> None:
    tokens = torch.randint(8, (1, 8))
    mask = torch.tensor([[True, False] * 4])
    logits = generator(tokens, torch.tensor([1]), mask)
    assert logits.shape == (1, 8, 8)
    other = torch.where(mask, (tokens + 3) % 8, tokens)
    assert torch.equal(generator(other, torch.tensor([1]), mask), logits)
    for place in range(1, 8, 2):  # in both directions
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 8
        assert ((generator(changed, torch.tensor([1]), mask) - logits).abs().amax(-1) > 0).all()
    for label in (2, NO_CLASS):
        assert not torch.allclose(generator(tokens, torch.tensor([label]), mask), logits)
    assert not torch.allclose(logits[0, 0], logits[0, 2])  # positions


def test_the_loss_is_cross_entropy_of_masked_tokens(generator: Generator) -> None:
    tokens, labels = torch.randint(8, (64, 8)), torch.randint(3, (64,))
    draws = draw_masks(tokens, labels, "arccos", 0.25, torch.Generator().manual_seed(1))
    dropped = draws.labels == NO_CLASS
    assert 5 <= int(dropped.sum()) <= 30
    assert torch.equal(draws.labels[~dropped], labels[~dropped])
    loss = masked_loss(generator, tokens, draws)
    log_p = generator(tokens, draws.labels, draws.mask).log_softmax(-1)
    own = log_p.gather(-1, tokens[..., None])[..., 0]
    assert loss.total.item() == pytest.approx(-own[draws.mask].mean().item(), rel=1e-5)
    assert loss.masked.item() == pytest.approx(draws.mask.float().mean().item())
    smooth = masked_loss(generator, tokens, draws, 0.1)
    assert smooth.cross_entropy == loss.total
    expected = 0.9 * loss.total.item() - 0.1 * log_p.mean(-1)[draws.mask].mean().item()
    assert smooth.total.item() == pytest.approx(expected, rel=1e-4)


def test_a_generated_image_does_not_depend_on_the_batch(generator: Generator) -> None:
    labels, seeds = [0, 1, 2, NO_CLASS, 1], [3, 1, 4, 1, 5]
    settings = DecodeSettings(num_steps=4)
    ones = [tokens.indices for tokens in generate(generator, labels, settings, seeds, batch_size=1)]
    threes = [tokens.indices for tokens in generate(generator, labels, settings, seeds, batch_size=3)]
    assert [len(x) for x in threes] == [3, 2]
    assert torch.equal(torch.cat(ones), torch.cat(threes))
    assert torch.cat(ones).shape == (5, 4, 1)  # in the tokenizer's groups of 6 bits
    with pytest.raises(ConfigError, match="no class 3; the generator knows 0 to 2"):
        list(generate(generator, [3], settings, [0]))
    with pytest.raises(ConfigError, match="1 seeds for 2 images"):
        list(generate(generator, [0, 1], settings, [0]))


def test_generator_file_round_trip(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_generator(generator, path, torch.float32, {"images": 7})
    again = load_generator(tmp_path)
    assert again.config == generator.config
    assert again.classes == ["a", "b", "c"]
    assert all(torch.equal(p, generator.get_parameter(name)) for name, p in again.named_parameters())
    assert not again.training
    assert read_generator_about(path) == (generator.config, ["a", "b", "c"], {"images": 7})
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["config"])["tokens"]["fingerprint"] == "0000002a"
    whole = path.stat().st_size
    save_generator(generator, path)
    assert path.stat().st_size < 0.6 * whole  # half precision
    assert load_generator(path).positions.dtype == torch.float32


def test_files_that_are_no_generator(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no generator at"):
        load_generator(tmp_path / "absent.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged or no safetensors"):
        load_generator(path)
    save_model(FlowMo(tiny_tokenizer()), path)
    with pytest.raises(WeightsError, match="not of a generator"):
        load_generator(path)
    save_generator(generator, path)
    with pytest.raises(WeightsError, match="not one of FlowMo's"):
        load_model(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file(tensors | {"readout.bias": torch.zeros(3)}, path, metadata)
    with pytest.raises(WeightsError, match="do not fit"):
        load_generator(path)
    for name, text in {"config": "{}", "classes": '["a"]', "about": "{"}.items():
        save_file(tensors, path, metadata | {name: text})
        with pytest.raises(WeightsError):
            load_generator(path)
    with torch.no_grad():
        generator.readout.bias[0] = 1e9
    with pytest.raises(WeightsError, match=r"readout.bias is not finite"):
        save_generator(generator, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 3}, "multiple of heads"),
        ({"depth": 3}, "even depth"),
        ({"num_classes": 0}, "num_classes"),
        ({"bits_per_group": 4}, "not a multiple of bits_per_group 4"),
        ({"bits_per_group": 30}, "from 1 to 24"),
    ],
)
def test_configurations_that_cannot_be(change: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(SMALL, **change)


def test_names_and_fingerprints_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="2 class names for a generator of 3"):
        Generator(SMALL, ["a", "b"])
    with pytest.raises(ConfigError, match="eight hexadecimal"):
        TokenLayout("12")
