"""The lengths of runs/release_256.sh, of the speed of the machine itself.

    python tools/plan_release.py DATA OUT --preset flowmo-base --crop 128 --time-limit 20m [...] --set NAME=VALUE ...

Updates are timed at both picture sizes, with LPIPS, with and without torch.compile where there is a GPU. Then each
phase of runs/packaged.sh gets its share of the time limit as a number of images. Everything is kept in OUT/plan.json: a
plan that is there is not made again, whatever the limit says now. NAME=VALUE: training settings of all phases.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from flowmo.config import override
from flowmo.data import BatchLoader, ImageSource, open_split
from flowmo.errors import FlowMoError
from flowmo.files import replacing
from flowmo.perceptual import load_lpips
from flowmo.presets import preset
from flowmo.profiling.training_speed import Speed, measure_updates, release
from flowmo.text import parse_time
from flowmo.training import TrainConfig

SHARES = {"crops": 0.03, "lpips": 0.57, "whole": 0.28, "seeking": 0.1}
"""Of the time, by phase; the shares of docs/LOG.md for two cores."""
SEEKING = 0.5
"""Images a second of the last phase as a share of those of whole images: each is sampled and compared whole."""
USED = 0.85
"""Of the time: the rest goes into the closed form, starting, validation and checkpoints."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as for flowmo train")
    parser.add_argument("out", type=Path, help="folder of the release")
    parser.add_argument("--preset", required=True, help="of the model")
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=VALUE", help="changes of the preset")
    parser.add_argument("--crop", type=int, required=True, help="side of the crops of the first phases")
    parser.add_argument("--time-limit", required=True, help="for all phases together")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="training settings of all phases")
    arguments = parser.parse_args()
    try:
        make(arguments)
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def make(arguments: argparse.Namespace) -> None:
    """Write OUT/plan.json, unless it is there. Raises DataError, and ConfigError for unknown settings."""
    path = arguments.out / "plan.json"
    if path.exists():
        return
    began, config = time.monotonic(), override(TrainConfig(), arguments.set)
    model = override(preset(arguments.preset), arguments.model)
    source = open_split(arguments.data, None, "train")[0]
    sides = {"crop": arguments.crop, "whole": model.image_size}
    compiled, speeds = fastest(arguments.preset, arguments.model, config, source, sides)
    seconds = USED * parse_time(arguments.time_limit) - (time.monotonic() - began)
    crop, whole = (speeds[name].images_per_second for name in sides)
    rate = {"crops": crop, "lpips": crop, "whole": whole, "seeking": SEEKING * whole}
    plan = {
        "preset": arguments.preset,
        "compile": compiled,
        "images_per_second": {name: round(speed.images_per_second, 2) for name, speed in speeds.items()},
        "utilisation": {name: round(speed.utilisation, 4) for name, speed in speeds.items()},
        "images": {
            phase: config.batch_size * max(2, round(share * seconds * rate[phase] / config.batch_size))
            for phase, share in SHARES.items()
        },
    }
    with replacing(path) as part:
        part.write_text(json.dumps(plan, indent=1) + "\n")
    print(json.dumps(plan, indent=1), flush=True)


def fastest(
    name: str, changes: list[str], config: TrainConfig, source: ImageSource, sides: dict[str, int]
) -> tuple[bool, dict[str, Speed]]:
    """Return whether compiled blocks are the faster ones for whole images, and the speed of updates by kind of size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    perceptual = load_lpips(config.perceptual_network).to(device)
    model, found = override(preset(name), changes), {}
    for compiled in (False, True) if device.type == "cuda" else (False,):
        train = replace(config, compile=compiled, crop_size=None)
        try:
            speeds = {}
            for kind, side in sides.items():
                with BatchLoader(source, config.batch_size, side, 0, workers=0, scale_to=model.image_size) as loader:
                    batch = next(iter(loader)).to(device)
                cut = replace(model, image_size=side, num_tokens=model.tokens_of((side, side)))
                speeds[kind] = measure_updates(cut, train, device, batch, perceptual)
                print(f"{side} px{', compiled' * compiled}: {speeds[kind]}", flush=True)
                release(device)
            found[compiled] = speeds
        except Exception as error:  # a compiler fails in many ways; training then does without
            if not compiled:
                raise
            print(f"torch.compile is left out: {error!r:.300}", flush=True)
    best = max(found, key=lambda compiled: found[compiled]["whole"].images_per_second)
    return best, found[best]


if __name__ == "__main__":
    sys.exit(main())
