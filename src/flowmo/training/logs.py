"""Where a run writes its numbers: JSON lines always, TensorBoard where it is installed, Weights & Biases when asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import replacing

NAME = "log.jsonl"


class Log:
    """The log of one run, kept by its main process.

    resumed_at: images seen where the run goes on; lines of work that was lost after that are dropped, so that none
    stands there twice. wandb: the project to report to. Raises ConfigError when that is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        resumed_at: int = 0,
        say: Callable[[str], None] = print,
        tensorboard: bool = True,
        wandb: str | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.say = folder / NAME, say
        folder.mkdir(parents=True, exist_ok=True)
        self._trim(resumed_at)
        self.board = _tensorboard(folder / "tensorboard", resumed_at) if tensorboard else None
        self.wandb = _wandb(wandb, folder, about or {}) if wandb else None

    def write(self, line: dict[str, Any]) -> None:
        """Write one line. line: "images" and numbers; what is no number goes into the JSON lines alone."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        numbers = {name: value for name, value in line.items() if isinstance(value, (int, float))}
        self.say("  ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v:.4g}" for k, v in numbers.items()))
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
        """End what this process told TensorBoard and Weights & Biases."""
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log of JSON, without those that are none: cut off by a kill, or with a broken byte."""
    lines = []
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
