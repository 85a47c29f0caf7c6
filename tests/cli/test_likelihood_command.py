"""``flowmo likelihood`` as a user runs it: on a trained model the right code is worth something."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_support import CAT, Command

from flowmo.evaluation.results import read_result

FOLDER = CAT.parent


def test_the_right_code_makes_a_picture_likelier(flowmo: Command) -> None:
    run = ("likelihood", "flowmo-mini-64", FOLDER, "--count", 3, "--steps", 2, "--num-probes", 2, "--out", "o")
    result = flowmo(*run, model=False)
    assert result.code == 0, result.err
    found = read_result(Path("o/flowmo-mini-64-likelihood.json"))
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
