"""runs/table2.sh trains a generator over another tokenizer and one over ours, from photographs to samples."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import torch

import warm_python
from flowmo.codec import read_shard
from flowmo.comparison.peers.open_magvit2 import Decoder, Encoder
from flowmo.data import open_images
from flowmo.generation import load_generator
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model

ROOT = Path(__file__).parents[2]


def test_both_rows_from_photographs_to_samples(shared: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    source = open_images(shared / "data" / "tiny64", split="validation")
    labels = np.array([source.label(i) for i in range(len(source))])
    for label, name in ((95, "a pizza"), (96, "b alp")):
        for part in ("train", "validation"):
            (data / part / name).mkdir(parents=True)
            for place in np.flatnonzero(labels == label)[:6]:
                source[int(place)].save(data / part / name / f"{place}.png")
    torch.manual_seed(0)
    parts = torch.nn.ModuleDict(
        {"encoder": Encoder(32, [32, 64], 1, 1, 18), "decoder": Decoder(18, [32, 64], 1, 1, 64)}
    )
    torch.save({"state_dict": parts.state_dict()}, tmp_path / "imagenet_256_L.ckpt")
    save_model(FlowMo(tiny()), tmp_path / "ours.safetensors")
    settings = warm_python.environment() | {
        "DEVICE": "cpu",
        "PRESET": "tiny",
        "SET": "images=16 batch_size=8",
        "EACH": "2",
        "STEPS": "2",
        "SIZE": "16",
    }
    settings["MEASURE"] = "0"  # which takes minutes, and is held by tests/evaluation
    tokenizers = [f"open-magvit2={tmp_path / 'imagenet_256_L.ckpt'}", str(tmp_path / "ours.safetensors")]

    def run() -> str:
        done = subprocess.run(
            [ROOT / "runs" / "table2.sh", data, out, *tokenizers],
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    run()
    for name, side, tokens in (("open-magvit2", 16, 64), ("ours", 32, 16)):
        layout = load_generator(out / name / "run").config.tokens
        assert (layout.num_tokens, layout.bits_per_token) == (tokens, 18)
        assert load_generator(out / name / "run").config.sequence_length == 2 * tokens
        shard = read_shard(out / name / "train.shard")
        assert f"{shard.fingerprint:08x}" == layout.fingerprint
        assert shard.tokenizer == layout.tokenizer == (name if name != "ours" else None)
        with np.load(out / "samples" / f"{name}.npz") as file:
            assert file["arr_0"].shape == (4, side, side, 3)
            assert file["arr_1"].tolist() == [0, 0, 1, 1]
    assert "+ flowmo" not in run(), "what is done was done again"
