"""Lookup-free quantization (Section 3.2, Eq. 2, 7, 8): against brute force over all codes, and the published order."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowmo.quantize.lfq import (
    EPSILON,
    bits_by_group,
    code_from_tokens,
    entropies,
    quantize_lfq,
    tokens_from_code,
)

shapes = st.tuples(st.integers(0, 3), st.integers(1, 8), st.integers(1, 5), st.integers(1, 20), st.integers(0, 10**6))


def all_codes(bits: int) -> Tensor:
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)), dtype=torch.float64)


def brute_force(samples: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """As published (A6): a softmax of 2 x.c / temperature over all codes c, for each sample."""
    p = torch.softmax(2 * samples @ all_codes(samples.shape[1]).T / temperature, dim=1)
    sample_entropy = torch.special.entr(p).sum(1).mean()
    mean = p.mean(0)
    return sample_entropy, -(mean * torch.log(mean + EPSILON)).sum()


@pytest.mark.parametrize("bits", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_entropies_and_their_gradients_equal_brute_force(bits: int, temperature: float) -> None:
    samples = (0.3 * torch.randn(40, bits, dtype=torch.float64)).requires_grad_()
    for ours, theirs in zip(entropies(samples, temperature), brute_force(samples, temperature), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
        (gradient,) = torch.autograd.grad(ours, samples, retain_graph=True)
        (expected,) = torch.autograd.grad(theirs, samples, retain_graph=True)
        assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-12)
        assert expected.abs().max() > 1e-6


def test_entropies_at_their_extremes() -> None:
    bits = 6
    undecided, codebook = entropies(torch.zeros(10, bits), 0.1)
    assert float(undecided) == pytest.approx(bits * 0.6931472, rel=1e-5)
    certain, _ = entropies(torch.full((10, bits), 5.0), 0.1)
    assert float(certain) == pytest.approx(0, abs=1e-6)
    _, even = entropies(5 * all_codes(bits).float(), 0.1)
    assert float(even) == pytest.approx(float(codebook), rel=1e-4)  # each code as often as the others
    _, one = entropies(torch.full((10, bits), 5.0), 0.1)
    assert float(one) == pytest.approx(0, abs=1e-4)  # always the same code


def test_entropies_over_processes_are_those_of_all_samples() -> None:
    """A7: two halves that know each other's mean code have the whole batch's entropies, and their gradients' mean is
    its gradient; without, the codebook entropy is another number."""
    samples = (0.3 * torch.randn(40, 6, dtype=torch.float64)).requires_grad_()
    halves = samples[:20], samples[20:]
    means: list[Tensor] = []

    def note(mean: Tensor) -> Tensor:
        means.append(mean)
        return mean

    alone = [entropies(half, 0.1, note) for half in halves]
    mean = (means[0] + means[1]) / 2
    together = [entropies(half, 0.1, lambda _: mean) for half in halves]
    for term, whole in enumerate(entropies(samples, 0.1)):
        average = (together[0][term] + together[1][term]) / 2
        assert torch.allclose(average, whole, rtol=1e-12)
        (expected,) = torch.autograd.grad(whole, samples, retain_graph=True)
        (gradient,) = torch.autograd.grad(average, samples, retain_graph=True)
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-14)
    assert torch.equal(together[0][1], together[1][1])
    assert abs((alone[0][1] + alone[1][1]) / 2 - together[0][1]).item() > 1e-2


def test_entropies_stay_finite_far_from_zero() -> None:
    samples = torch.tensor([[1e4, -1e4], [1e-30, 0.0]], requires_grad=True)
    sample_entropy, codebook_entropy = entropies(samples, 0.1)
    (sample_entropy - codebook_entropy).backward()
    assert samples.grad is not None
    assert samples.grad.isfinite().all()


@given(shapes)
def test_code_and_tokens_are_inverse(shape: tuple[int, int, int, int, int]) -> None:
    batch, num_tokens, groups, bits, seed = shape
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2**bits, (batch, num_tokens, groups), generator=generator)
    code = code_from_tokens(tokens, bits)
    assert code.shape == (batch, num_tokens, groups * bits)
    assert set(code.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(tokens_from_code(code, bits), tokens)


@given(shapes)
def test_tokens_and_code_are_inverse(shape: tuple[int, int, int, int, int]) -> None:
    batch, num_tokens, groups, bits, seed = shape
    generator = torch.Generator().manual_seed(seed)
    code = torch.randint(2, (batch, num_tokens, groups * bits), generator=generator).float() * 2 - 1
    assert torch.equal(code_from_tokens(tokens_from_code(code, bits), bits), code)


def test_groups_are_interleaved_and_bits_little_endian() -> None:
    """Channel = bit * groups + group (A8): bit 2 of group 1 of two groups is channel 5, worth 4."""
    for groups, bits in ((2, 9), (4, 14)):
        for group, bit in itertools.product(range(groups), range(bits)):
            code = -torch.ones(1, 1, groups * bits)
            code[0, 0, bit * groups + group] = 1
            expected = torch.zeros(groups, dtype=torch.int64)
            expected[group] = 2**bit
            assert torch.equal(tokens_from_code(code, bits)[0, 0], expected)
            assert bits_by_group(code, bits)[group, bit] == 1  # the entropy's groups are the tokens'


def test_zero_becomes_minus_one() -> None:
    """A9; the smallest positive number is positive."""
    quantized = quantize_lfq(torch.tensor([[[0.0, -0.0, 1e-38, -1e-38]]]), bits_per_group=2)
    assert quantized.code.tolist() == [[[-1.0, -1.0, 1.0, -1.0]]]
    assert quantized.tokens is not None
    assert quantized.tokens.tolist() == [[[2, 0]]]


def test_gradient_passes_straight_through() -> None:
    latent = torch.randn(2, 3, 8, requires_grad=True)
    weight = torch.randn(2, 3, 8)
    (quantize_lfq(latent, 4).code * weight).sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, weight)


def test_commitment_is_the_mean_square_distance() -> None:
    latent = torch.tensor([[[0.5, -2.0, 0.0, 1.0]]], requires_grad=True)
    loss = quantize_lfq(latent, 2).losses.commitment
    assert loss.item() == pytest.approx((0.25 + 1 + 1 + 0) / 4)  # A10
    loss.backward()
    assert latent.grad is not None
    assert torch.allclose(latent.grad, torch.tensor([[[-0.25, -0.5, 0.5, 0.0]]]))


def test_tanh_bound() -> None:
    """Same signs, but every loss sees a latent inside (-1, 1), and the gradient shrinks with it."""
    latent = (3 * torch.randn(2, 3, 8)).requires_grad_()
    bounded, free = quantize_lfq(latent, 4, tanh_bound=True), quantize_lfq(latent, 4)
    assert torch.equal(bounded.code.sign(), free.code.sign())
    assert torch.allclose(bounded.losses.commitment, quantize_lfq(latent.tanh(), 4).losses.commitment)
    assert not torch.allclose(bounded.losses.commitment, free.losses.commitment)
    bounded.code.sum().backward()
    assert latent.grad is not None
    assert torch.allclose(latent.grad, 1 - latent.tanh() ** 2, atol=1e-6)


def test_named_loss_terms() -> None:
    losses = quantize_lfq(torch.randn(2, 3, 8), 4).losses
    assert torch.equal(losses.entropy, losses.sample_entropy - losses.codebook_entropy)
    assert all(value.shape == () and value.isfinite() for value in losses)


def test_half_precision_latents_are_quantized_in_single() -> None:
    latent = torch.randn(2, 3, 8).bfloat16()
    quantized = quantize_lfq(latent, 4)
    assert quantized.code.dtype == torch.float32
    assert torch.equal(quantized.losses.commitment, quantize_lfq(latent.float(), 4).losses.commitment)
