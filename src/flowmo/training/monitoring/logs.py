"""Where a run writes its numbers: JSON lines always, TensorBoard where it is installed, Weights & Biases when asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import replacing
from ...metrics.table import column

NAME = "log.jsonl"


class Log:
    """The log of one run, kept by its main process.

    resumed_at: images seen where the run goes on. Lines of work that was lost after that are dropped, so that none
    stands there twice.
    wandb: the project to report to. Raises ConfigError when that is asked for and not installed.
    planned: images of the whole run, to say how far it is.
    """

    def __init__(
        self,
        folder: Path,
        resumed_at: int = 0,
        say: Callable[[str], None] = print,
        tensorboard: bool = True,
        wandb: str | None = None,
        about: dict[str, Any] | None = None,
        planned: int = 0,
    ) -> None:
        self.path, self.say, self.planned = folder / NAME, say, planned
        folder.mkdir(parents=True, exist_ok=True)
        self._trim(resumed_at)
        self.board = _tensorboard(folder / "tensorboard", resumed_at) if tensorboard else None
        self.wandb = _wandb(wandb, folder, about or {}) if wandb else None

    def write(self, line: dict[str, Any]) -> None:
        """Write one line. line: "images" and numbers; what is no number goes into the JSON lines alone."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        numbers = {name: value for name, value in line.items() if isinstance(value, (int, float))}
        self.say(in_words(numbers, self.planned))
        rest = {name: value for name, value in numbers.items() if name != "images"}
        if self.board:
            for name, value in rest.items():
                self.board.add_scalar(name, value, line["images"])
        if self.wandb:
            self.wandb.log(numbers)

    def image(self, path: Path, images: int) -> None:
        """Show a contact sheet, which was written to ``path``, on TensorBoard and Weights & Biases."""
        if not (self.board or self.wandb) or not path.exists():
            return
        import numpy as np
        from PIL import Image

        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB"))
        if self.board:
            self.board.add_image("reconstructions", pixels, images, dataformats="HWC")
        if self.wandb:
            import wandb

            self.wandb.log({"images": images, "reconstructions": wandb.Image(pixels)})

    def close(self) -> None:
        """Close what this process writes to TensorBoard and Weights & Biases."""
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()

    def _trim(self, images_seen: int) -> None:
        kept = []
        for line in read_lines(self.path):
            images = line.get("images")
            if isinstance(images, (int, float)) and images <= images_seen:
                kept.append(json.dumps(line))
        with replacing(self.path) as part:
            part.write_text("".join(f"{line}\n" for line in kept))


WORDS = {
    "total": "loss", "flow": "flow loss", "perceptual": "LPIPS loss", "reconstruction": "squared error",
    "cross_entropy": "cross-entropy", "accuracy": "accuracy", "distance": "distance",
    "psnr": "PSNR", "psnr_one_step": "in one step", "psnr_thumbnail": "of a thumbnail",
    "psnr_shuffled": "codes shuffled", "lpips": "LPIPS", "rfid": column("rfid").label, "bits_never_flip": "unused bits",
    "skipped_step": "skipped update",
}  # fmt: skip
"""What people are told of a line, in this order, and how it is called; all else is in the JSON lines alone."""


def duration(seconds: float) -> str:
    """Return a time in the unit that people would say it in: 2.6 s, 96 min, 5.2 h."""
    for size, unit in ((5400, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / (3600 if unit == 'h' else 60):,.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def in_words(line: dict[str, Any], planned: int = 0) -> str:
    """Return a line of the log for people.

    It says how far the run is, the numbers that tell how it goes, its speed, the time left and what went wrong.
    planned: images of the whole run, 0 where that is unknown.
    """
    images = line.get("images", 0)
    said = [f"{images:,} of {planned:,} images ({images / planned:.0%})" if planned else f"{images:,} images"]
    for name, words in WORDS.items():
        if name not in line or (name == "perceptual" and not line[name]):
            continue
        if name == "bits_never_flip":
            said += [f"{words} {line[name]:.0%}"] if line[name] else []
        elif name.startswith("psnr"):
            said.append(f"{words} {line[name]:.2f} dB")
        else:
            said.append(f"{words} {line[name]:.4g}")
    if "checkpoint_seconds" in line:
        took, held = line["checkpoint_seconds"], line["checkpoint_wait"]
        said.append(
            f"checkpoint of {line['checkpoint_mb']:,.1f} MiB written in {took:.1f} s, {held:.1f} s of them "
            "held the training up"
        )
    if "images_per_s" in line:
        said.append(f"{line['images_per_s']:.3g} images/s")
    if "hours_left" in line:
        hours = line["hours_left"]
        said.append(f"{hours:.1f} h left" if hours >= 1 else f"{hours * 60:.1f} min left")
    for name, words in (("skipped_steps", "skipped updates"), ("broken_images", "broken images")):
        if line.get(name):
            said.append(f"{words} {line[name]:,}")
    return ", ".join(said)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log of JSON, without those that are cut off by a kill or have a broken byte."""
    lines = []
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no plain file; remove it, or give another folder")
    for text in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _tensorboard(folder: Path, images_seen: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=images_seen + 1 if images_seen else None)


def _wandb(project: str, folder: Path, about: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise ConfigError("--wandb needs Weights & Biases: pip install wandb") from None
    identity = folder / "wandb-id"
    if not identity.exists():
        identity.write_text(wandb.util.generate_id())
    run = wandb.init(project=project, dir=str(folder), id=identity.read_text(), resume="allow", config=about)
    run.define_metric("*", step_metric="images")
    return run
