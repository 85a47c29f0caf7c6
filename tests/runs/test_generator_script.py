"""runs/generator.sh on a few real photographs: stopped at its time limit, and going on where it was. Its later steps
take minutes; they are commands that tests/cli and tests/evaluation hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import warm_python
from flowmo.codec import read_shard
from flowmo.data import open_images

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly
def test_the_generators_pipeline_stops_and_goes_on(shared: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for part in ("train", "validation"):
        source = open_images(shared / "data" / "tiny64", split=part)
        labels = np.array([source.label(i) for i in range(len(source))])
        for label, name in ((95, "a pizza"), (96, "b alp")):
            (data / part / name).mkdir(parents=True)
            for place in np.flatnonzero(labels == label)[:6]:
                source[int(place)].save(data / part / name / f"{place}.png")
    settings = {"PRESET": "tiny", "IMAGES": "48", "COOLDOWN": "16", "BATCH": "8", "LIMIT": "0s", "FLIP": "1"}

    def run() -> str:
        done = subprocess.run(
            ["bash", str(ROOT / "runs" / "generator.sh"), str(data), str(out)],
            env=warm_python.environment() | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        assert "the same command goes on" in done.stdout
        return done.stdout

    first, second = run(), run()
    assert first.count("flowmo tokenize") == 3  # the mirrored pictures are the third
    assert "flowmo tokenize" not in second  # done before
    assert "resuming at 8 images" in second
    shard = read_shard(out / "train.shard")
    assert shard.classes == ["a pizza", "b alp"]
    assert shard.labels is not None
    assert shard.labels.tolist() == [0] * 6 + [1] * 6
    assert "24 images of 2 classes in 2 shards" in first
    assert json.loads((out / "run" / "config.json").read_text())["model"]["tokens"]["num_tokens"] == 64
    assert not (out / "samples").exists()  # they come when it is trained to the end
