"""Weights of a model or of a run, in half precision and in files small enough to be sent.

    python tools/export_weights.py SOURCE OUT [--checkpoint] [--most-mb 15.9] [--add FILE ...]

SOURCE: what ``flowmo.load`` takes; with --checkpoint the folder of a run, of whose newest checkpoint the raw weights
are taken. OUT: a folder, which ``flowmo.load`` and ``flowmo train --init`` take in turn. Files named by --add are
copied there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from flowmo.errors import FlowMoError, TrainingError
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainState, World, read_newest
from flowmo.training.start import stored_model_config
from flowmo.weights import load, read_about, save_model_shards, weights_path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a model, or the folder of a run")
    parser.add_argument("out", type=Path, help="folder of the shards")
    parser.add_argument("--checkpoint", action="store_true", help="raw weights of the run's newest checkpoint")
    parser.add_argument("--most-mb", type=float, default=15.9, help="largest size of a file, in MB (default: 15.9)")
    parser.add_argument("--add", nargs="+", type=Path, default=[], metavar="FILE", help="files to put beside them")
    arguments = parser.parse_args()
    try:
        if arguments.checkpoint:
            model, about = from_checkpoint(arguments.source)
        else:
            model, about = load(arguments.source), read_about(weights_path(arguments.source))
        index = save_model_shards(model, arguments.out, about=about, most_bytes=round(1e6 * arguments.most_mb))
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    for path in arguments.add:
        shutil.copy(path, arguments.out)
    print(f"{index.parent}: weights ({about.get('weights')}) after {about.get('images', 0):,} images")
    return 0


def from_checkpoint(run: Path) -> tuple[FlowMo, dict[str, Any]]:
    """The raw weights of the newest checkpoint that is whole. Raises TrainingError where there is none."""
    checkpoint = read_newest(run)
    if checkpoint is None:
        raise TrainingError(f"{run} holds no checkpoint; name the folder of a run")
    state = TrainState.start(FlowMo(stored_model_config(checkpoint)), checkpoint.train_config)
    checkpoint.restore(state, World(), moments=False)
    model = state.model
    assert isinstance(model, FlowMo)
    return model, {"images": state.images_seen, "weights": "raw"}


if __name__ == "__main__":
    sys.exit(main())
