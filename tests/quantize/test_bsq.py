"""Binary spherical quantization and the rotation trick, held by their formulas written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowmo.config import QuantizerConfig
from flowmo.errors import ConfigError
from flowmo.presets import tiny
from flowmo.quantize import make_quantizer
from flowmo.quantize.base import straight_through
from flowmo.quantize.bsq import bit_entropies, quantize_bsq


def test_the_code_is_the_nearest_corner_on_the_sphere() -> None:
    latent = 5 * torch.randn(3, 4, 6)
    code = quantize_bsq(latent, 3).code
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6))) / math.sqrt(6)
    nearest = corners[torch.cdist(F.normalize(latent, dim=-1).flatten(0, 1), corners).argmin(-1)].view_as(code)
    assert torch.allclose(code, nearest, atol=1e-6)
    assert torch.allclose(code.norm(dim=-1), torch.ones(3, 4))
    assert torch.allclose(quantize_bsq(0.01 * latent, 3).code, code, atol=1e-6)  # its length says nothing


def test_entropies_are_those_of_the_softmax_over_all_corners() -> None:
    """The sample's by the table of 2^K codes; the mean code's is a bound, exact for one sample."""
    unit = F.normalize(torch.randn(2, 5, 4), dim=-1)
    sample, codebook = bit_entropies(unit, 4, 0.7)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))) / 2
    table = torch.softmax(2 * unit.flatten(0, 1) @ corners.T / 0.7, dim=-1)
    assert float(sample) == pytest.approx(float(torch.special.entr(table).sum(-1).mean()), rel=1e-5)
    assert float(codebook) >= float(torch.special.entr(table.mean(0)).sum()) - 1e-6
    alone = bit_entropies(unit[:1, :1], 4, 0.7)
    assert float(alone[1]) == pytest.approx(float(alone[0]), rel=1e-5)


def test_a_mean_over_processes_is_that_of_all_samples() -> None:
    unit = F.normalize(torch.randn(4, 5, 6), dim=-1)
    means: list[Tensor] = []

    def keep(mean: Tensor) -> Tensor:
        means.append(mean)
        return mean

    for part in unit.split(2):
        bit_entropies(part, 3, 0.1, keep)
    for part in unit.split(2):
        together = bit_entropies(part, 3, 0.1, lambda _: torch.stack(means).mean(0))[1]
        assert float(together) == pytest.approx(float(bit_entropies(unit, 3, 0.1)[1]), rel=1e-5)


def test_the_gradient_is_turned_as_the_token_was() -> None:
    """The Jacobian is |q| / |e| R, R a rotation that takes e's direction to q's."""
    e = torch.randn(1, 1, 5)
    q = torch.where(e > 0, 1.0, -1.0)
    assert torch.allclose(straight_through(e, q, rotate=True), q, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda x: straight_through(x, q, rotate=True).flatten(), e)
    matrix = jacobian.view(5, 5) * e.norm() / q.norm()
    assert torch.allclose(matrix @ matrix.T, torch.eye(5), atol=1e-5)
    assert float(torch.linalg.det(matrix)) == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(matrix @ (e / e.norm()).flatten(), (q / q.norm()).flatten(), atol=1e-5)


@pytest.mark.parametrize("kind", ["lfq", "bsq"])
def test_the_rotation_changes_gradients_and_nothing_else(kind: str) -> None:
    codes, tokens, gradients = [], [], []
    for way in ("identity", "rotation"):
        config = QuantizerConfig(kind, straight_through=way)  # type: ignore[arg-type]
        latent = torch.randn(2, 16, 18, generator=torch.Generator().manual_seed(0), requires_grad=True)
        quantized = make_quantizer(replace(tiny(), quantizer=config))(latent)
        (quantized.code * torch.arange(18)).sum().backward()
        codes.append(quantized.code)
        tokens.append(quantized.tokens)
        gradients.append(latent.grad)
    assert torch.allclose(codes[0], codes[1], atol=1e-6)
    assert tokens[0] is not None
    assert tokens[0].equal(tokens[1])
    assert gradients[1].isfinite().all()
    assert not torch.allclose(gradients[0], gradients[1])
    with pytest.raises(ConfigError, match="for lfq and bsq"):
        QuantizerConfig("fsq", straight_through="rotation")
