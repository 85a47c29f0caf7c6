"""The sampler that computes once what it can, against the plain one; chunks; a model prepared for inference."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import flowmo
from flowmo import inference
from flowmo.config import SamplerConfig
from flowmo.errors import ConfigError
from flowmo.flow import seeded_noise
from flowmo.perceptual import load_lpips
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from plain_sampler import plain_sample

GRIDS = [(1, 1.0), (3, 1.0), (7, 4.0), (4, 0.5)]
GUIDANCE = [(1.0, (0.0, 1.0)), (1.5, (0.1453, 0.5050)), (3.0, (0.0, 1.0)), (0.0, (0.0, 1.0)), (2.0, (0.99, 1.0))]


@pytest.fixture(params=itertools.product(["velocity", "clean"], ["per_block", "shared"]), ids="-".join)
def model(request: pytest.FixtureRequest, lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    prediction, modulation = request.param
    return lively(FlowMo(replace(tiny(), prediction=prediction, modulation=modulation)))  # type: ignore[return-value]


def code_of(model: FlowMo, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.quantize(model.encode(images)).code


@pytest.mark.parametrize("steps", GRIDS, ids=str)
@pytest.mark.parametrize("guidance", GUIDANCE, ids=str)
def test_it_is_the_plain_sampler(
    steps: tuple[int, float],
    guidance: tuple[float, tuple[float, float]],
    model: FlowMo,
    samples: Callable[[int], Tensor],
) -> None:
    """Same pictures to 1e-5 in float32, with no guidance, in part of the grid, in all of it, null alone."""
    code, noise = code_of(model, samples(32)[:2]), seeded_noise([3, 4], 2, (3, 32, 32))
    sampler = SamplerConfig(*steps, *guidance)
    expected = plain_sample(model, code, noise, sampler)
    with torch.no_grad():
        found = model.sample(code, noise, sampler)
    assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    assert not torch.allclose(expected, noise, atol=0.1)


def test_it_keeps_gradients(model: FlowMo, samples: Callable[[int], Tensor]) -> None:
    """To the code, and those of the plain sampler."""
    images = samples(32)[:2]
    noise = seeded_noise(0, 2, (3, 32, 32))
    sampler = SamplerConfig(3, 2.0, 1.5, (0.0, 0.5))
    gradients = []
    plain = plain_sample.__wrapped__  # type: ignore[attr-defined]
    for sample in (lambda c: plain(model, c, noise, sampler), lambda c: model.sample(c, noise, sampler)):
        code = code_of(model, images).requires_grad_()
        sample(code).square().mean().backward()
        assert code.grad is not None
        gradients.append(code.grad)
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()


def test_the_host_never_waits(model: FlowMo, samples: Callable[[int], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a run has begun, no value of a tensor is asked for: there the host would wait for a GPU."""
    code, noise = code_of(model, samples(32)[:2]), seeded_noise(0, 2, (3, 32, 32))
    asked: list[str] = []
    for name in ("item", "__float__", "__bool__", "tolist", "numpy", "cpu"):
        usual = getattr(Tensor, name)

        def noted(self: Tensor, *args: object, name: str = name, usual: Callable[..., object] = usual) -> object:
            asked.append(name)
            return usual(self, *args)

        monkeypatch.setattr(Tensor, name, noted)
    with torch.no_grad():
        model.sample(code, noise, SamplerConfig(4, 1.0, 1.5, (0.0, 1.0)))
    assert asked == ["tolist"]  # of the grid, which lies on the host


def test_a_level_is_computed_once(model: FlowMo, samples: Callable[[int], Tensor]) -> None:
    """Time embedding and modulations run once a sample, whatever its steps; the code enters once, the null code too."""
    code, noise = code_of(model, samples(32)[:2]), seeded_noise(0, 2, (3, 32, 32))
    calls: dict[str, int] = {}
    for name, module in model.decoder.named_modules():
        if name == "code_in" or name.endswith(("time_embedding", "modulation")):
            module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    with torch.no_grad():
        model.sample(code, noise, SamplerConfig(5, 1.0, 1.5, (0.0, 1.0)))
    assert calls.pop("code_in") == 2
    assert len(calls) > 2
    assert set(calls.values()) == {1}


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_chunks_change_nothing(chunk_size: int, model: FlowMo, samples: Callable[[int], Tensor]) -> None:
    images, seeds = samples(32), list(range(8))
    settings = {"num_steps": 2, "seed": seeds}
    tokens = model.tokenize(images)
    expected = model.detokenize(tokens, **settings)  # type: ignore[arg-type]
    sizes: list[int] = []
    model.decoder.image_in.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    model.prepare(chunk_size=chunk_size)
    assert (model.tokenize(images).indices != tokens.indices).float().mean() < 0.01  # rounding may turn a bit
    found = model.detokenize(tokens, **settings)  # type: ignore[arg-type]
    assert max(sizes) <= 2 * chunk_size
    assert (found - expected).abs().max() < 1e-4


def test_the_usual_chunk_follows_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FlowMo(tiny())
    monkeypatch.setattr(inference, "TOKENS_AT_ONCE", {"cpu": 64, "cuda": 64})
    assert [model.chunk_size(size) for size in ((32, 32), (64, 64), (256, 256))] == [2, 1, 1]
    assert model.tokenize(torch.zeros(5, 3, 32, 32)).indices.shape == (5, 16, 2)


@pytest.mark.parametrize("options", [{}, {"prediction": "clean", "modulation": "shared"}], ids=str)
def test_a_compiled_model_is_the_same(
    options: dict[str, str],
    lively: Callable[[nn.Module], nn.Module],
    samples: Callable[[int], Tensor],
) -> None:
    """As the compiler's front end sees it: one graph for each static shape, chunks padded. Kernels are not tested."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    c = tiny()
    shallow = replace(c, encoder=replace(c.encoder, depth=1), decoder=replace(c.decoder, depth=1))
    model: FlowMo = lively(FlowMo(replace(shallow, **options)))  # type: ignore[assignment, arg-type]
    images, seeds = samples(32)[:5], [0, 1, 2, 3, 4]
    plain = copy.deepcopy(model)
    tokens = plain.tokenize(images)
    expected = plain.detokenize(tokens, num_steps=3, rho=1.0, seed=seeds)
    assert model.prepare(compile="eager", chunk_size=2) is model
    assert (model.tokenize(images).indices != tokens.indices).float().mean() < 0.01
    found = model.detokenize(tokens, num_steps=3, rho=1.0, seed=seeds)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4
    again = model.detokenize(tokens[:1], num_steps=5, seed=[0])  # other steps, a batch of another size
    assert again.shape == (1, 3, 32, 32)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 3  # encoder, decoder, decoder with the null condition beside
    torch.compiler.reset()


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_of_a_prepared_model_runs_its_own_weights(again: Callable[[FlowMo], FlowMo]) -> None:
    model = FlowMo(tiny()).prepare(compile="eager", chunk_size=2)
    names = list(FlowMo(tiny()).state_dict())
    copied = again(model)
    assert (copied.inference.chunk_size, copied.inference.encoder_pass, copied.inference.decoder_pass) == (
        2,
        None,
        None,
    )
    assert list(copied.state_dict()) == list(model.state_dict()) == names


def test_half_precision_moves_no_metric(samples: Callable[[int], Tensor]) -> None:
    """The packaged model with weights in bfloat16, as its float32 self codes: PSNR and LPIPS within 0.5 %."""
    images, lpips = samples(64)[:4], load_lpips("alex")
    model = flowmo.load()
    tokens = model.tokenize(images)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        again = model.prepare(dtype=dtype).detokenize(tokens, seed=list(range(4)))
        assert again.dtype == torch.float32
        psnr = 10 * torch.log10(4 / (again - images).square().flatten(1).mean(1))
        found.append([float(psnr.mean()), float(lpips(again, images).mean())])
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.005)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"dtype": torch.int8}, "float32, bfloat16"),
        ({"device": "cuda:99"}, 'cannot be put on cuda:99.*device="cpu"'),
        ({"device": "nowhere"}, "cannot be put on nowhere"),
        ({"compile": "nothing"}, "does not take 'nothing'"),
    ],
)
def test_what_cannot_be_prepared(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FlowMo(tiny()).prepare(**settings)  # type: ignore[arg-type]
