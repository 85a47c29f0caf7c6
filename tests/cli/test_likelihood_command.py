"""``flowmo likelihood`` as a user runs it: on a trained model the right code is worth something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_support import CAT, Command
from torch import Tensor

from flowmo.evaluation.results import read_result
from flowmo.experiments.likelihood import LikelihoodSettings
from flowmo.flow import Solver
from flowmo.flow.likelihood import likelihood_grid, log_likelihood
from flowmo.flow.solvers import asked_levels

FOLDER = CAT.parent


def test_the_right_code_makes_a_picture_likelier(flowmo: Command, learned: Path) -> None:
    run = ("likelihood", learned, FOLDER, "--count", 3, "--steps", 2, "--num-probes", 2, "--out", "o")
    result = flowmo(*run, model=False)
    assert result.code == 0, result.err
    found = read_result(Path("o/learned-likelihood.json"))
    assert found.data.count == 3
    content = found.content
    assert content["settings"]["start"] == pytest.approx(0.05)
    assert content["decoder_evaluations"] == 4
    for other in ("own - other", "own - null"):
        assert content["differences"][other]["interval"][0] > 0
    for numbers in content["pictures"].values():
        assert numbers["own"]["nats"] > numbers["other"]["nats"]
        assert 0 < numbers["own"]["standard_error_nats"] < 1000
    assert flowmo(*run, model=False).code == 2, "a result was overwritten"


@pytest.mark.parametrize(("solver", "expected"), [("euler", 7), ("heun", 14)])
def test_its_passes_are_those_that_happen(solver: Solver, expected: int) -> None:
    """Counted where the sampler's are; every step of Heun's is corrected here, since none ends at t = 0."""
    settings, asked = LikelihoodSettings(num_steps=7, solver=solver), []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return x

    log_likelihood(velocity, torch.zeros(1, 3), likelihood_grid(7, settings.rho, settings.start), [0], solver)
    assert settings.evaluations == expected == len(asked)
    assert asked == pytest.approx(asked_levels(likelihood_grid(7, settings.rho, settings.start).tolist(), solver))


def test_a_model_without_training_and_other_settings(flowmo: Command, weights: Path) -> None:
    run = ("likelihood", weights, FOLDER, "--count", 2, "--steps", 1, "--solver", "euler", "--json", "--out", "o")
    one = flowmo(*run, "--condition", "null", "--num-probes", 1, "--start", 0.3, model=False)
    assert one.code == 0, one.err
    content = one.json["content"]
    assert list(content["means"]) == ["null"]
    assert content["means"]["null"]["probe_standard_error_nats"] is None
    assert content["differences"] == {}
    again = flowmo(*run, "--condition", "null", "--num-probes", 1, "--start", 0.3, "--seed", 1, "--force", model=False)
    assert again.json["content"]["pictures"] != content["pictures"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [(("--count", 1), "at least two"), (("--start", 1), "first noise level"), (("--steps", 0), "whole number")],
)
def test_what_cannot_be_is_said(flowmo: Command, weights: Path, extra: tuple, words: str) -> None:
    result = flowmo("likelihood", weights, FOLDER, "--out", "o", *extra, model=False)
    assert result.code == 2
    assert words in result.err
    assert not list(Path().glob("o/*"))
