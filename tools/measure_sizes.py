"""One model on pictures of many sizes: quality, memory and time of a large picture, and the borders of its tiles.

    python tools/measure_sizes.py photos256/ --model flowmo-mini [--originals 'FOLDER/*.jpg'] [--out results/sizes.json]

1. 64, 128, 256, 512 and 768 x 512 pixels at two rates: PSNR and LPIPS (Alex). Pictures larger than the photographs are
   windows of many photographs side by side, so that their details are real (flowmo/experiments/sizes.py).
2. --originals: other photographs, each as it is, by its name.
3. The step of the error across the borders of tiles against that across the other borders of patches.
4. ``flowmo tokenize --size original`` and ``flowmo detokenize`` of 2,000 x 1,500 and 4,000 x 3,000 pixels: peak memory
   of the process and its time, beside those of a command that only loads the model (Linux).

What is measured is kept in the file at once: a part that is there of the same model is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import flowmo
from flowmo.config import to_dict
from flowmo.data import find_images, fit_image, open_image, open_images, to_tensor, whole_size
from flowmo.evaluation.results import weights_checksum
from flowmo.experiments.sizes import SIZES, quality, seam_step, tiled_image
from flowmo.files import replacing
from flowmo.perceptual import load_lpips
from flowmo.provenance import code_version, machine
from flowmo.weights.load import PACKAGED

OUT = Path(__file__).parents[1] / "results" / "sizes.json"
LARGE = ((1500, 2000), (3000, 4000))
SEAMS = (1024, 1536)
"""(height, width) of the pictures whose borders of tiles are measured, 24 tiles each."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="held-out photographs")
    parser.add_argument("--model", default=PACKAGED, help="a model of any size, as for flowmo.load")
    parser.add_argument("--name", help="of the model in the table (default: as in --model)")
    parser.add_argument("--bits-per-token", type=int, nargs=2, default=[18, 56], help="the rates (default: 18 56)")
    parser.add_argument("--count", type=int, default=100, help="pictures a size (default: 100)")
    parser.add_argument("--seam-count", type=int, default=8, help="pictures whose tiles are measured (default: 8)")
    parser.add_argument("--originals", nargs="+", default=[], metavar="FILE", help="photographs to code as they are")
    parser.add_argument("--no-large", action="store_true", help="leave memory and time out")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the results (default: results/sizes.json)")
    arguments = parser.parse_args(argv)
    model, lpips = flowmo.load(arguments.model), load_lpips("alex")
    if model.config.transform is None:
        print(f"{arguments.model} codes one size; give a model with a transform", file=sys.stderr)
        return 2
    source = open_images(arguments.data, split="validation")
    photographs = [source[i * len(source) // arguments.count] for i in range(arguments.count)]
    rates, patch = arguments.bits_per_token, model.config.transform.patch_size
    content = _opened(arguments, model, f"{arguments.count} of the {len(source):,} photographs of")

    def part(name: str, measure: Callable[[], Any]) -> None:
        if name not in content:
            content[name] = measure()
            with replacing(arguments.out) as path:
                path.write_text(json.dumps(content, indent=1) + "\n")
            print(f"{name}: {json.dumps(content[name])}", file=sys.stderr, flush=True)

    def tokens_of(height: int, width: int) -> int:
        return model.config.tokens_of(whole_size((height, width), patch))

    def row(height: int, width: int, found: dict[int, dict[str, float]]) -> dict[str, Any]:
        by_rate = {str(b): {"bytes": -(-tokens_of(height, width) * b // 8)} | found[b] for b in rates}
        return {"height": height, "width": width, "rates": by_rate}

    for height, width in SIZES:
        images = [tiled_image(photographs, i, height, width) for i in range(len(photographs))]
        part(f"{width} x {height}", lambda h=height, w=width, p=images: row(h, w, quality(model, p, rates, lpips)))
    for path in find_images(arguments.originals) if arguments.originals else []:
        image = open_image(path).image.convert("RGB")
        padded = fit_image(image, *whole_size((image.height, image.width), patch), "whole")
        part(path.stem, lambda i=image, p=padded: row(i.height, i.width, quality(model, [p], rates, lpips)))
    part("seams", lambda: _seams(model, photographs, patch, rates, arguments.seam_count))
    if not arguments.no_large:
        part("loading", lambda: _timed(["info", arguments.model]))
        for height, width in LARGE:
            large = tiled_image(photographs, 0, height, width)
            part(f"large {width} x {height}", lambda p=large: _commands(arguments.model, p))
    return 0


def _opened(arguments: argparse.Namespace, model: flowmo.FlowMo, count: str) -> dict[str, Any]:
    """Return the file's content where it is of the same weights and settings, else what a new one begins with."""
    begun: dict[str, Any] = {
        "model": arguments.name or arguments.model,
        "sha256": weights_checksum(model),
        "sampler": to_dict(model.config.sampler),
        "data": f"{count} {Path(arguments.data).name}, validation",
        "bits_per_token": arguments.bits_per_token,
        "count": arguments.count,
    }
    if arguments.out.exists():
        known: dict[str, Any] = json.loads(arguments.out.read_text())
        if all(known.get(name) == value for name, value in begun.items()):
            return known
    return begun | {"code": code_version(), "machine": machine(torch.device("cpu"))}


def _seams(
    model: flowmo.FlowMo, photographs: list[Any], patch: int, rates: list[int], count: int
) -> dict[str, dict[str, float]]:
    """Return the steps across borders of tiles and elsewhere, by bits a token."""
    found: dict[str, dict[str, float]] = {}
    for bits in rates:
        steps = []
        for i in range(count):
            x = to_tensor(tiled_image(photographs, 12 * i, *SEAMS))[None]
            with torch.inference_mode():
                steps.append(seam_step(model.detokenize(model.tokenize(x, bits), seed=[i]), x, patch))
        border, elsewhere = (sum(column) / count for column in zip(*steps, strict=True))
        found[str(bits)] = {"border": border, "elsewhere": elsewhere, "ratio": border / elsewhere}
    return found


def _commands(model: str, image: Any) -> dict[str, dict[str, float]]:
    """Return the memory and time of coding a picture as it is, and of decoding it, by the commands."""
    with tempfile.TemporaryDirectory() as folder:
        photo, tokens, back = (Path(folder) / name for name in ("photo.jpg", "tokens", "back"))
        image.save(photo, quality=95)
        model_flags = ["--model", model, "--device", "cpu"]
        coded = _timed(["tokenize", str(photo), "--out", str(tokens), "--size", "original", *model_flags])
        decoded = _timed(["detokenize", str(tokens), "--out", str(back), *model_flags])
        assert open_image(back / "photo.png").image.size == image.size
    return {"tokenize": coded, "detokenize": decoded}


def _timed(arguments: list[str]) -> dict[str, float]:
    """Return the seconds and the peak memory in MB (10^6 bytes) of a command, which must succeed.

    The peak is that of the command's own memory (VmHWM), looked at while it runs: what the system tells at the end of
    a process counts that of its parent too.
    """
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "flowmo", *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(OSError, StopIteration):  # it ended between the two
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max(peak, int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"flowmo {' '.join(arguments)} ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak * 1024 / 1e6)}


if __name__ == "__main__":
    sys.exit(main())
