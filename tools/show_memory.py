"""How much memory reading a released checkpoint takes: peak anonymous memory against the model's own size.

    python tools/show_memory.py FOLDER                     FlowMo-Lo with raw and EMA weights, a file of 7.6 GB
    python tools/show_memory.py FOLDER --preset flowmo-fewer-params --model decoder.depth=2

Writes a checkpoint of random weights in the released format to FOLDER, reads it in a fresh process, and removes it.
Pages of the mapped file are not counted: the system drops them when memory is short. Prints one line of JSON; exit code
1 when the ratio is above the limit. Linux only, as it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from flowmo.config import FlowMoConfig, override
from flowmo.presets import PRESETS
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_official, official_layout

LIMIT = 1.3


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write the checkpoint; needs twice the model's size")
    parser.add_argument("--preset", default="flowmo-lo", help="configuration of the checkpoint (default flowmo-lo)")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="settings of it to change")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"highest ratio that passes (default {LIMIT})")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # the fresh process
    arguments = parser.parse_args(argv)
    config: FlowMoConfig = override(PRESETS[arguments.preset](), arguments.model)
    if arguments.read:
        print(json.dumps(measure(arguments.read, config)))
        return 0

    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "checkpoint.pth"
        write_checkpoint(path, config)
        command = [sys.executable, __file__, folder, "--preset", arguments.preset, "--read", str(path)]
        command += ["--model", *arguments.model] if arguments.model else []
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found["file_bytes"] = path.stat().st_size
    print(json.dumps(found))
    return int(found["ratio"] > arguments.limit)


def write_checkpoint(path: Path, config: FlowMoConfig) -> None:
    shapes = {key: slot.shape for key, slot in official_layout(config).items()}
    ema = {key: torch.randn(shape) / math.sqrt(shape[-1]) for key, shape in shapes.items()}
    raw = {key: value + 0.001 for key, value in ema.items()}
    torch.save({"total_steps": 1, "model_state_dict": raw, "model_ema_state_dict": ema}, path)


def measure(path: Path, config: FlowMoConfig) -> dict[str, float]:
    """Load in this process and report the peak above what the interpreter took before, in bytes."""
    with torch.device("meta"):
        size = 4 * sum(p.numel() for p in FlowMo(config).parameters())
    before, peak, done = anonymous_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_memory())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load_official(path, num_tokens=config.num_tokens, image_size=config.image_size)
    peak = max(peak, anonymous_memory())
    done.set()
    watcher.join()
    assert model.config == config
    return {"model_bytes": size, "peak_bytes": peak - before, "ratio": round((peak - before) / size, 4)}


def anonymous_memory() -> int:
    """Bytes of this process's memory that no file backs."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
