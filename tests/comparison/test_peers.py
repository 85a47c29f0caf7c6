"""Other tokenizers from files, small ones of each kind: what is read off the shapes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flowmo.cli.main import main
from flowmo.comparison.peers import PEERS, PeerNetwork, build_peer, cosmos, llamagen, load_peer, maskbit, open_magvit2
from flowmo.comparison.peers import network as network_module
from flowmo.comparison.peers import titok as titok_module
from flowmo.comparison.peers.adapter import published_peer
from flowmo.errors import ConfigError, ImageError, WeightsError

CPU = torch.device("cpu")


class Small(NamedTuple):
    parts: nn.Module
    size: int
    bits: int
    tokens: tuple[int, ...]


class Parts(nn.Module):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def table(rows: int, width: int) -> nn.Module:
    return network_module.Table(rows, width)


def small(name: str) -> Small:
    """A network of the family of that name with sizes that nobody publishes, and random weights."""
    torch.manual_seed(3)
    if name == "llamagen-ds16":
        halves = [llamagen.Half(3, 32, [32, 64], 1, 16, False), llamagen.Half(16, 64, [64, 32], 2, 3, True)]
        convs = {"quant_conv": nn.Conv2d(16, 4, 1), "post_quant_conv": nn.Conv2d(4, 16, 1)}
        return Small(Parts(encoder=halves[0], decoder=halves[1], quantize=table(100, 4), **convs), 16, 7, (8, 8))
    if name == "open-magvit2":
        halves = open_magvit2.Encoder(32, [32, 64], 1, 2, 5), open_magvit2.Decoder(5, [32, 64], 1, 2, 64)
        return Small(Parts(encoder=halves[0], decoder=halves[1]), 16, 5, (8, 8))
    if name == "maskbit-18":
        halves = maskbit.Encoder(32, [32, 64, 64], 1, 2, 5), maskbit.Decoder(5, [64, 64, 32], 1, 2, 64)
        return Small(Parts(encoder=halves[0], decoder=halves[1]), 16, 5, (4, 4))
    if name == "cosmos-di8":
        halves = cosmos.Encoder(32, [32, 64], 1, 1, 16), cosmos.Decoder(16, [32, 64], 2, 1, 64)
        convs = {"quant_conv": nn.Conv2d(16, 6, 1), "post_quant_conv": nn.Conv2d(6, 16, 1)}
        return Small(Parts(encoder=halves[0], decoder=halves[1], **convs), 16, 16, (2, 2))
    legacy = name == "titok-s128"
    head = [128, 20] if legacy else [3 * 8 * 8]
    parts: dict[str, nn.Module] = {
        "encoder": titok_module.Encoder(64, 2, 17, 6, 8, 4),
        "decoder": titok_module.Decoder(128, 1, 17, 6, 4, head),
        "quantize": table(64, 4),
    }
    if legacy:
        parts |= {"pixel_quantize": table(20, 16), "pixel_decoder": titok_module.PixelDecoder(16, [32] * 4, 1, 1, 32)}
    whole = Parts(**parts)
    whole.register_parameter("latent_tokens", nn.Parameter(torch.empty(6, 64)))
    with torch.no_grad():
        for key, value in whole.named_parameters():
            if "token" in key or "embedding" in key:
                value.normal_()
    return Small(whole, 32, 6, (1, 6))


FAMILIES = ["llamagen-ds16", "open-magvit2", "maskbit-18", "cosmos-di8", "titok-s128", "titok-sl256"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_small_one_of_each_kind(name: str) -> None:
    parts, size, bits, shape = small(name)
    network = build_peer(name, parts.state_dict())
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = network.tokenize(images)
    assert tokens.shape == (2, *shape)
    assert network.bits_per_token == bits
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 2**bits
    assert network.indices(network.codes(tokens)).equal(tokens) or name.startswith("cosmos")
    back = network.detokenize(tokens)
    assert back.shape == images.shape
    assert float(back.abs().max()) <= 1
    torch.testing.assert_close(network.detokenize(tokens[1:]), back[1:], atol=1e-5, rtol=1e-4)
    assert not torch.equal(network.detokenize(tokens ^ 1), back), "the tokens decide nothing"


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_that_lack_or_are_too_many_are_named(name: str) -> None:
    state = small(name).parts.state_dict()
    key = "decoder.conv_in.bias" if "titok" not in name else "decoder.decoder_embed.bias"
    without = {k: v for k, v in state.items() if k != key}
    with pytest.raises(WeightsError, match=key):
        build_peer(name, without)
    with pytest.raises(WeightsError, match=r"encoder\.another"):
        build_peer(name, state | {"encoder.another": torch.zeros(1)})
    with pytest.raises(WeightsError, match=key):
        build_peer(name, state | {key: torch.zeros(3)})


def test_another_networks_file_is_told() -> None:
    with pytest.raises(WeightsError, match="lacks"):
        build_peer("llamagen-ds16", small("maskbit-18").parts.state_dict())


def same(a: PeerNetwork, b: PeerNetwork) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_files_as_their_authors_wrap_them(tmp_path: Path) -> None:
    state = small("llamagen-ds16").parts.state_dict()
    plain = build_peer("llamagen-ds16", state)
    counter = {"quantize.codebook_used": torch.zeros(7)}
    torch.save({"model": state | counter, "steps": 3}, tmp_path / "vq.pt")
    assert same(load_peer("llamagen-ds16", tmp_path / "vq.pt"), plain)
    other = {key: value + 1 for key, value in state.items()}
    torch.save({"model": other, "ema": state}, tmp_path / "ema.pt")
    assert same(load_peer("llamagen-ds16", tmp_path / "ema.pt"), plain)

    state = small("titok-s128").parts.state_dict()
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "titok.bin")
    one, two = (load_peer("titok-s128", tmp_path / file) for file in ("model.safetensors", "titok.bin"))
    assert same(one, two)


def test_the_moving_averages_of_a_lightning_checkpoint_are_taken(tmp_path: Path) -> None:
    state = small("open-magvit2").parts.state_dict()
    raw = {key: value + 1 for key, value in state.items()}
    average = {"model_ema." + key.replace(".", ""): value for key, value in state.items()}
    rest = {"model_ema.decay": torch.tensor(0.999), "loss.discriminator.weight": torch.zeros(2)}
    torch.save({"state_dict": raw | average | rest}, tmp_path / "magvit.ckpt")
    assert same(load_peer("open-magvit2", tmp_path / "magvit.ckpt"), build_peer("open-magvit2", state))


def test_a_pair_of_torchscript_files_is_read_and_not_run(tmp_path: Path) -> None:
    class First(nn.Module):
        def __init__(self, parts: nn.Module) -> None:
            super().__init__()
            self.encoder, self.quant_conv = parts.encoder, parts.quant_conv

        def forward(self, x: Tensor) -> Tensor:
            return self.quant_conv(self.encoder(x))

    class Second(nn.Module):
        def __init__(self, parts: nn.Module) -> None:
            super().__init__()
            self.post_quant_conv, self.decoder = parts.post_quant_conv, parts.decoder

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.post_quant_conv(x))

    parts = small("cosmos-di8").parts.bfloat16()
    inputs = torch.zeros(1, 3, 16, 16).bfloat16(), torch.zeros(1, 6, 2, 2).bfloat16()
    for module, given, file in zip((First(parts), Second(parts)), inputs, PEERS["cosmos-di8"].files, strict=True):
        torch.jit.trace(module, given).save(str(tmp_path / file))
    network = load_peer("cosmos-di8", tmp_path / "encoder.jit")
    assert same(network, build_peer("cosmos-di8", parts.state_dict()))
    (tmp_path / "decoder.jit").unlink()
    with pytest.raises(WeightsError, match="both files"):
        load_peer("cosmos-di8", tmp_path / "encoder.jit")


class _Runs:
    def __reduce__(self) -> tuple:
        return (print, ("this ran",))


def test_nothing_of_a_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": _Runs()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt"):
        load_peer("llamagen-ds16", tmp_path / "evil.pt")
    assert "this ran" not in capsys.readouterr().out


def test_in_a_comparison(tmp_path: Path) -> None:
    parts, size, bits, shape = small("maskbit-18")
    torch.save(parts.state_dict(), tmp_path / "bits.bin")
    peer = published_peer(f"maskbit-18={tmp_path / 'bits.bin'}", CPU)
    assert peer is not None
    assert peer.bytes_per_image(size, size) is None
    images = torch.rand(3, 3, size, size) * 2 - 1
    together = peer.reconstruct(images, [0, 1, 2])
    torch.testing.assert_close(peer.reconstruct(images[2:], [5]), together[2:], atol=1e-5, rtol=1e-4)
    assert peer.bytes_per_image(size, size) == -(-shape[0] * shape[1] * bits // 8)
    with pytest.raises(ImageError, match="multiples of 4"):
        peer.reconstruct(torch.zeros(1, 3, 18, 16), [0])
    assert published_peer("mine=module:function", CPU) is None
    with pytest.raises(ConfigError, match="the known ones"):
        load_peer("vqgan", tmp_path / "bits.bin")


def test_the_list_names_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--peers", "list"]) == 0
    out = capsys.readouterr().out
    for name, peer in PEERS.items():
        assert name in out
        assert all(file in out for file in peer.files)
        assert peer.source in out
    assert main(["compare"]) == 2
