"""Decoding in closed form: callables whose logits are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowmo.errors import ConfigError
from flowmo.generation import NO_CLASS, DecodeSettings, decode, guided, tokens_left

LENGTH, VOCABULARY = 24, 7
GREEDY = DecodeSettings(num_steps=6, temperature=0, final_temperature=0, choice_noise=0, guidance_scale=1)
SECRET = torch.stack([torch.arange(LENGTH) % VOCABULARY, (3 * torch.arange(LENGTH) + 1) % VOCABULARY])


def knows(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Is sure of the sequence of the class, more so further to the right."""
    sureness = torch.linspace(1, 9, LENGTH)[None, :, None]
    return torch.nn.functional.one_hot(SECRET[labels], VOCABULARY) * sureness


def biased(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The same distribution at every place: p(v) = (v + 1) / 28."""
    return torch.log(torch.arange(1.0, VOCABULARY + 1)).expand(*tokens.shape, VOCABULARY)


@pytest.mark.parametrize("steps", [1, 2, 6, 24, 100])
def test_greedy_decoding_recovers_what_the_logits_say(steps: int) -> None:
    settings = DecodeSettings(steps, temperature=0, final_temperature=0, choice_noise=0, guidance_scale=1)
    labels = torch.tensor([0, 1, 0])
    assert torch.equal(decode(knows, labels, LENGTH, settings, [1, 2, 3]), SECRET[labels])


def test_the_surest_are_fixed_first_and_so_many_as_planned() -> None:
    seen: list[Tensor] = []
    decode(knows, torch.tensor([1]), LENGTH, GREEDY, [0], lambda tokens, mask: seen.append(mask[0]))
    left = tokens_left(LENGTH, 6)
    assert [int(mask.sum()) for mask in seen] == left
    for mask, number in zip(seen, left, strict=True):
        assert mask.tolist() == [i < number for i in range(LENGTH)]  # the surest stand at the right


def test_coarse_integers_of_all_tokens_are_fixed_before_finer_ones() -> None:
    seen: list[Tensor] = []
    settings = replace(GREEDY, order="coarse")
    decode(knows, torch.tensor([1]), LENGTH, settings, [0], lambda tokens, mask: seen.append(mask[0]), groups=3)
    left = tokens_left(LENGTH, 6)
    place = torch.arange(LENGTH)
    last_first = torch.argsort(-(place % 3) * LENGTH + place, stable=True)  # the finest, and of these the least sure
    for mask, number in zip(seen, left, strict=True):
        assert sorted(place[mask].tolist()) == sorted(last_first[:number].tolist())
    with pytest.raises(ConfigError, match="order must be sure or coarse"):
        DecodeSettings(order="fine")  # type: ignore[arg-type]


def test_known_tokens_are_given_back_and_never_change() -> None:
    asked: list[tuple[Tensor, Tensor]] = []

    def watch(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        asked.append((tokens.clone(), mask.clone()))
        return biased(tokens, labels, mask)

    settings = DecodeSettings(num_steps=8, guidance_scale=1)
    result = decode(watch, torch.tensor([0, 0]), LENGTH, settings, [5, 6])
    assert len(asked) == 8
    assert asked[0][1].all()
    for (tokens, mask), (_, later) in zip(asked, [*asked[1:], asked[-1]], strict=True):
        assert (later <= mask).all()  # what is known stays known
        assert torch.equal(tokens[~mask], result[~mask])


def test_tokens_are_drawn_from_the_distribution_at_the_temperature() -> None:
    labels, seeds = torch.zeros(400, dtype=torch.int64), list(range(400))
    for temperature, weights in ((1.0, [1, 2, 3, 4, 5, 6, 7]), (0.5, [1, 4, 9, 16, 25, 36, 49])):
        settings = DecodeSettings(1, "linear", temperature, temperature, 0, 1)  # later steps would keep the surest
        drawn = decode(biased, labels, LENGTH, settings, seeds)
        share = torch.bincount(drawn.flatten(), minlength=VOCABULARY) / drawn.numel()
        expected = torch.tensor(weights) / sum(weights)
        assert (share - expected).abs().max() < 0.02  # 9600 draws: four deviations


def test_the_temperature_anneals_linearly() -> None:
    settings = DecodeSettings(temperature=1.2, final_temperature=0.4)
    assert [settings.temperature_at(x) for x in (0, 0.5, 1)] == pytest.approx([1.2, 0.8, 0.4])
    order: list[int] = []

    def note(tokens: Tensor, mask: Tensor) -> None:
        order.extend(i for i in (~mask[0]).nonzero()[:, 0].tolist() if i not in order)

    hot_then_cold = DecodeSettings(LENGTH, "linear", 1e9, 0, 1e6, 1)  # in a random order
    result = decode(knows, torch.tensor([1]), LENGTH, hot_then_cold, [1], note)[0]
    assert result[order[-1]] == SECRET[1, order[-1]]  # drawn at temperature 0
    assert (result != SECRET[1]).float().mean() > 0.5  # the others nearly evenly


def test_choice_noise_changes_which_tokens_stay() -> None:
    first: list[list[bool]] = []
    for noise in (0.0, 50.0):
        seen: list[Tensor] = []
        settings = DecodeSettings(6, temperature=0, final_temperature=0, choice_noise=noise, guidance_scale=1)
        decode(knows, torch.tensor([1]), LENGTH, settings, [0], lambda tokens, mask, seen=seen: seen.append(mask[0]))
        first.append(seen[0].tolist())
    assert first[0] != first[1]


def test_an_image_depends_on_its_seed_alone() -> None:
    settings = DecodeSettings(num_steps=5, guidance_scale=1)
    labels, seeds = torch.zeros(6, dtype=torch.int64), [7, 3, 7, 11, 4, 3]
    together = decode(biased, labels, LENGTH, settings, seeds)
    for i, seed in enumerate(seeds):
        assert torch.equal(decode(biased, labels[:1], LENGTH, settings, [seed])[0], together[i])
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1], together[5])
    assert len({tuple(row.tolist()) for row in together}) == 4


def of_label(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Logits (label, 1, 0, 0, ...), and (5, 0, 0, ...) without a class."""
    logits = torch.zeros(*tokens.shape, VOCABULARY)
    logits[..., 0] = torch.where(labels == NO_CLASS, 5.0, labels.float())[:, None]
    logits[..., 1] = (labels != NO_CLASS).float()[:, None]
    return logits


def test_guidance_is_its_formula() -> None:
    tokens, mask = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)
    labels = torch.tensor([2, 9])
    for scale in (0.0, 0.5, 1.0, 1.5, 10.0):
        logits = guided(of_label, tokens, labels, mask, scale)
        assert torch.allclose(logits[:, 0, 0], 5 + scale * (labels - 5.0))
        assert torch.allclose(logits[:, 0, 1], torch.full((2,), scale))


def test_guidance_costs_a_pass_only_where_there_is_one() -> None:
    sizes: list[int] = []

    def count(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        sizes.append(len(tokens))
        return of_label(tokens, labels, mask)

    tokens, mask = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)
    guided(count, tokens, torch.tensor([1, 1]), mask, 1.0)
    guided(count, tokens, torch.tensor([1, 1]), mask, 2.0)
    guided(count, tokens, torch.tensor([NO_CLASS, NO_CLASS]), mask, 2.0)
    assert sizes == [2, 4, 2]


def test_guidance_with_and_without_decay() -> None:
    def scales(decay: str) -> list[float]:
        settings = DecodeSettings(guidance_scale=3, guidance_decay=decay)  # type: ignore[arg-type]
        return [settings.guidance_at(x) for x in (0, 0.25, 0.5, 1)]

    assert scales("none") == [3, 3, 3, 3]
    assert scales("linear") == [1, 1.5, 2, 3]
    assert scales("cosine") == pytest.approx([1, 1 + (1 - math.sqrt(0.5)), 2, 3])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"temperature": -1}, "temperature"),
        ({"choice_noise": math.nan}, "choice_noise"),
        ({"schedule": "step"}, "schedule"),
        ({"guidance_scale": math.inf}, "guidance_scale"),
        ({"guidance_decay": "fast"}, "guidance_decay"),
    ],
)
def test_settings_out_of_range(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DecodeSettings(**settings)


def test_wrong_use_is_named() -> None:
    with pytest.raises(ConfigError, match="2 seeds for 1 images"):
        decode(biased, torch.tensor([0]), LENGTH, GREEDY, [1, 2])
    with pytest.raises(ConfigError, match="not finite"):
        decode(lambda *a: biased(*a) * math.nan, torch.tensor([0]), LENGTH, GREEDY, [1])
