"""The settings of runs/release_256.sh that are found on the machine itself: speed, prediction, learning rate, length.

    python tools/plan_release.py DATA OUT --preset flowmo-mini-hi --time-limit 20m [...] --set NAME=VALUE ...

1. Speed: updates at both picture sizes, with and without torch.compile where there is a GPU.
2. Trials of --seconds each, one seed, the whole recipe in small at the smaller size: velocity against clean prediction
   at the middle learning rate, then the other rates with the better one. The lowest validation LPIPS of the model's
   sampler decides.
3. The number of images that fit into what is left of the time limit: half at the smaller size, half at the larger.

Everything is kept in OUT/plan.json as it becomes known: what is there is not done again, and a finished plan never
changes. With --init WEIGHTS prediction and learning rate are those of the plan.json beside the weights, and all of the
time goes into the second half. NAME=VALUE: training settings of all of the release's runs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flowmo.cli.main import main as flowmo
from flowmo.cli.runs import parse_time
from flowmo.config import override
from flowmo.data import BatchLoader, open_images
from flowmo.errors import FlowMoError
from flowmo.files import replacing
from flowmo.perceptual import load_lpips
from flowmo.presets import PRESETS
from flowmo.profiling.training_speed import Speed, measure_updates, release
from flowmo.training import TrainConfig

STOPPED = 3  # exit code: the same command goes on
RATES = (3e-4, 6e-4, 1e-3)
SAMPLER = ("sampler.num_steps=8", "sampler.rho=1", "sampler.guidance_scale=1")  # fair to both predictions
USED = 0.9
"""Of the time: the rest goes into starting, looking at pictures and writing checkpoints."""


class Plan:
    """OUT/plan.json, written whenever something is added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, name: str, value: Any) -> None:
        self.content[name] = value
        with replacing(self.path) as part:
            part.write_text(json.dumps(self.content, indent=1) + "\n")
        print(f"{name}: {json.dumps(value)}", flush=True)

    @property
    def trials(self) -> dict[str, dict[str, float]]:
        return {name.removeprefix("trial "): v for name, v in self.content.items() if name.startswith("trial ")}

    def get(self, name: str, default: Any = None) -> Any:
        return self.content.get(name, default)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.npy and validation.npy")
    parser.add_argument("out", type=Path, help="folder of the release")
    parser.add_argument("--preset", required=True, help="of the model")
    parser.add_argument("--small", type=int, required=True, help="side of the pictures of the first half")
    parser.add_argument("--time-limit", required=True, help="for trials and training together")
    parser.add_argument("--seconds", type=float, default=60, help="of a trial (default: 60)")
    parser.add_argument("--stop-after", help="start no trial that would not end by then; exit code 3")
    parser.add_argument("--lpips", type=Path, help="weights of the perceptual network")
    parser.add_argument("--init", type=Path, help="weights to go on from, instead of the first half")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="training settings of all runs")
    arguments = parser.parse_args()
    plan = Plan(arguments.out / "plan.json")
    if plan.get("flow_images"):
        return 0
    try:
        make(plan, arguments)
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def make(plan: Plan, arguments: argparse.Namespace) -> None:
    began, spent = time.monotonic(), plan.get("seconds_spent", 0.0)

    def note_time() -> None:
        plan.add("seconds_spent", round(spent + time.monotonic() - began, 1))

    def try_out(candidates: list[tuple[str, float]]) -> tuple[str, float]:
        reached = {}
        for prediction, rate in candidates:
            if time.monotonic() - began + 1.5 * arguments.seconds > parse_time(arguments.stop_after):
                sys.exit(STOPPED)
            reached[prediction, rate] = trial(plan, arguments, prediction, rate, images)["lpips"]
            note_time()
        return min(reached, key=lambda candidate: reached[candidate])

    config = override(TrainConfig(), arguments.set)
    small, full = arguments.small, PRESETS[arguments.preset]().image_size
    if "images_per_second" not in plan.content:
        measure(plan, config, arguments, (small, full))
        note_time()
    speeds = plan.get("images_per_second")
    images = _batches(arguments.seconds * speeds[str(small)], config)
    if arguments.init:
        earlier = json.loads((arguments.init / "plan.json").read_text())
        plan.add("prediction", earlier["prediction"])
        plan.add("learning_rate", earlier["learning_rate"])
    if "prediction" not in plan.content:
        plan.add("prediction", try_out([(prediction, RATES[1]) for prediction in ("velocity", "clean")])[0])
    if "learning_rate" not in plan.content:
        plan.add("learning_rate", try_out([(plan.get("prediction"), rate) for rate in RATES])[1])
    # Training reads pictures and looks at them too: as much slower as the best trial was.
    best = max((reached["images_per_s"] for reached in plan.trials.values()), default=math.inf)
    slower = min(1.0, best / speeds[str(small)])
    seconds = USED * slower * (parse_time(arguments.time_limit) - plan.get("seconds_spent"))
    first = 0 if arguments.init else 1 / speeds[str(small)]
    half = _batches(seconds / (first + 1 / speeds[str(full)]), config)
    plan.add("code_images", 0 if arguments.init else half)
    plan.add("flow_images", half)  # the last: with it the plan is complete


def measure(plan: Plan, config: TrainConfig, arguments: argparse.Namespace, sizes: tuple[int, int]) -> None:
    """Tell the plan images a second and utilisation by side, and whether compiled blocks are the faster ones."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    perceptual = load_lpips(config.perceptual_network, arguments.lpips).to(device)
    model, source = PRESETS[arguments.preset](), open_images(arguments.data / "train.npy")
    found: dict[bool, dict[str, Speed]] = {}
    for compiled in (False, True) if device.type == "cuda" else (False,):
        try:
            speeds = {}
            for size in sizes:
                with BatchLoader(source, config.batch_size, size, 0, workers=0, scale_to=model.image_size) as loader:
                    batch = next(iter(loader)).to(device)
                train, cut = replace(config, compile=compiled), replace(model, image_size=size)
                speeds[str(size)] = measure_updates(cut, train, device, batch, perceptual)
                print(f"{size} px{', compiled' * compiled}: {speeds[str(size)]}", flush=True)
                release(device)
            found[compiled] = speeds
        except Exception as error:  # a compiler fails in many ways; training then does without
            if not compiled:
                raise
            print(f"torch.compile is left out: {error!r:.300}", flush=True)
    best = max(found, key=lambda compiled: found[compiled][str(sizes[1])].images_per_second)
    plan.add("compile", best)
    plan.add("utilisation", {size: round(speed.utilisation, 4) for size, speed in found[best].items()})
    plan.add("images_per_second", {size: speed.images_per_second for size, speed in found[best].items()})


def trial(plan: Plan, arguments: argparse.Namespace, prediction: str, rate: float, images: int) -> dict[str, float]:
    """What a short training of the whole recipe reaches; from the plan where it is known."""
    name = f"{prediction}-{rate:g}"
    if name in plan.trials:
        return plan.trials[name]
    folder = arguments.out / "trials" / name
    model = [f"image_size={arguments.small}", f"prediction={prediction}", *SAMPLER]
    length = [f"images={images}", f"warmup_images={images // 20}", f"cooldown_images={images // 4}"]
    curriculum = [f"noise_levels.curriculum_images={images * 9 // 20}", f"noise_levels.anneal_images={images // 10}"]
    more = [f"learning_rate={rate}", f"compile={str(plan.get('compile')).lower()}", f"check_images={images}", "seed=0"]
    code = flowmo(
        ["train", str(arguments.data / "train.npy"), str(folder), "--recipe", "none", "--preset", arguments.preset]
        + ["--validation", str(arguments.data / "validation.npy"), "--model", *model]
        + (["--lpips", str(arguments.lpips)] if arguments.lpips else [])
        + ["--set", *arguments.set, *length, *curriculum, *more]
    )
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    if code or lines[-1]["images"] < images or "lpips" not in lines[-1]:  # an error, or stopped on request
        sys.exit(code or STOPPED)
    release(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    reached = {key: value for key, value in lines[-1].items() if key.startswith(("images", "lpips", "psnr"))}
    reached["images_per_s"] = max(line["images_per_s"] for line in lines if "images_per_s" in line)
    plan.add(f"trial {name}", reached)
    return reached


def _batches(images: float, config: TrainConfig) -> int:
    """Rounded to whole batches, at least ten."""
    return config.batch_size * max(10, round(images / config.batch_size))


if __name__ == "__main__":
    sys.exit(main())
