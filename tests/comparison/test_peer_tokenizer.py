"""Other people's tokenizers with FlowMo's verbs: measured by ``evaluate``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_peers import small

from flowmo import samples
from flowmo.cli.main import main
from flowmo.comparison.peers import build_peer
from flowmo.comparison.peers.tokenizer import PeerTokenizer, open_tokenizer
from flowmo.data import fit_image, open_images, to_tensor
from flowmo.errors import ConfigError, ImageError
from flowmo.evaluation.results import read_result
from flowmo.metrics.pixels import pooled_psnr
from flowmo.quantize.tokens import Tokens

PICTURES = samples.paths()[0].parent


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A small MaskBit of 5 bits a token and a quarter of the side."""
    torch.save(small("maskbit-18").parts.state_dict(), tmp_path / "bits.bin")
    return f"maskbit-18={tmp_path / 'bits.bin'}"


@pytest.mark.parametrize("name", ["llamagen-ds16", "open-magvit2", "maskbit-18", "cosmos-di8", "titok-s128"])
def test_its_steps_and_verbs_are_the_networks(name: str) -> None:
    parts, size, bits, shape = small(name)
    network = build_peer(name, parts.state_dict())
    tokenizer = PeerTokenizer(name, network, size)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    indices = network.tokenize(images)
    tokens = tokenizer.tokenize(images)
    assert tokens == Tokens(indices.flatten(1)[..., None], bits, (size, size))
    assert tokenizer.config.num_tokens == shape[0] * shape[1]
    expected = network.detokenize(indices)
    assert torch.equal(tokenizer.detokenize(tokens, seed=[3, 4], num_steps=None), expected)
    assert torch.equal(tokenizer.decode_noise(tokenizer.code_of(tokens.indices)), expected)
    assert torch.equal(tokenizer.decode_noise(tokenizer.codes(images)), expected)


def test_what_it_refuses(spec: str) -> None:
    tokenizer = open_tokenizer(spec, 16)
    tokens = tokenizer.tokenize(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ConfigError, match="num_steps"):
        tokenizer.detokenize(tokens, num_steps=4)
    with pytest.raises(ConfigError, match="16 x 16"):
        tokenizer.detokenize(Tokens(tokens.indices, 5, (32, 32)))
    with pytest.raises(ConfigError, match="of 6 bits"):
        tokenizer.detokenize(Tokens(tokens.indices, 6, (16, 16)))
    with pytest.raises(ConfigError, match="--peers list"):
        open_tokenizer("vqgan=file.pt", 16)
    with pytest.raises(ImageError, match="multiples of 4"):
        open_tokenizer(spec, 18)
    few = PeerTokenizer(
        "llamagen-ds16", build_peer("llamagen-ds16", small("llamagen-ds16").parts.state_dict()), 16
    )  # 100 codes in 7 bits
    with pytest.raises(ConfigError, match="has 100 codes, and a token is 127"):
        few.detokenize(Tokens(torch.full((1, 64, 1), 127), 7, (16, 16)))


def test_the_fingerprint_tells_weights_apart(spec: str) -> None:
    one, two = open_tokenizer(spec, 16), open_tokenizer(spec, 16)
    assert one.fingerprint() == two.fingerprint()
    with torch.no_grad():
        next(two.network.parameters()).add_(1)
    assert one.fingerprint() != two.fingerprint()


def test_an_evaluation_measures_what_the_network_gives(spec: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--count", "6", "--metrics", "psnr", "code", "--peer-size", "32", "--out", str(out), "--device", "cpu"]
    command = ["evaluate", str(PICTURES), "--peers", spec, "--protocol", "published", *arguments]
    assert main(command) == 0
    result = read_result(out / "maskbit-18-published.json")
    assert result.protocol == "published"
    assert result.models[0].sampler is None
    assert result.models[0].fingerprint == f"{open_tokenizer(spec, 32).fingerprint():08x}"
    assert result.content["rate"]["payload_bytes"] == 8 * 8 * 5 / 8

    source, network = open_images(PICTURES, 6), open_tokenizer(spec, 32).network
    images = torch.stack([to_tensor(fit_image(source[i], 32, 32)) for i in range(6)])
    shown = network.detokenize(network.tokenize(images))
    cut = [((x + 1) / 2 * 255).to(torch.uint8).double() for x in (images, shown)]
    errors = (cut[0] - cut[1]).square().flatten(1).mean(1).tolist()
    assert result.content["metrics"]["psnr"] == pytest.approx(pooled_psnr(errors, [0, 0, 0, 0, 0, 1]), abs=1e-3)
    assert main(command) == 0, "what is measured is known"


def test_the_command_compares_it(spec: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", str(PICTURES), "--model", "--peers", spec, "--metrics", "--count", "2", "--size", "32"]
    assert main([*words, "--out", str(out), "--device", "cpu"]) == 0
    rows = read_result(out / "comparison.json").content["rows"]
    (row,) = [row for row in rows if row["name"] == "MaskBit, 18 bits"]
    assert row["payload_bytes"] == 8 * 8 * 5 / 8
    source, network = open_images(PICTURES, 2), open_tokenizer(spec, 32).network
    images = torch.stack([to_tensor(fit_image(source[i], 32, 32)) for i in range(2)])
    shown = network.detokenize(network.tokenize(images))
    eight = [((x + 1) * 127.5).round() for x in (images, shown)]
    errors = (eight[0] - eight[1]).square().flatten(1).mean(1)
    assert row["metrics"]["psnr"] == pytest.approx(float((10 * (255**2 / errors).log10()).mean()), abs=1e-2)


def test_an_evaluation_of_nothing_is_refused(tmp_path: Path) -> None:
    assert main(["evaluate", str(PICTURES), "--out", str(tmp_path / "out")]) == 2
    assert main(["evaluate", str(PICTURES), "--peers", "mine=file", "--out", str(tmp_path / "out")]) == 2
