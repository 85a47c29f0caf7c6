"""What several commands share: their flags, the model they ask for, bad files, and progress."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from ..codec import check_image_size
from ..config import FlowMoConfig, SamplerConfig, to_dict
from ..devices import AUTO, best_device, resolve_device
from ..errors import ConfigError, FlowMoError, ImageError
from ..files import json_text, user_path
from ..flow import Guidance, Solver, shifted_grid
from ..image_utils.fit import FITS
from ..tokenizer import FlowMo
from ..weights import load
from ..weights.load import PACKAGED, checkpoint_folder
from ..weights.sizes import loss_at
from .flags import add_pth_arguments
from .plain import plain
from .values import ORIGINAL, finite, positive, rho, seed, size, steps

OUT = "flowmo-out"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


DATA_HELP = "folder of pictures, tar, WebDataset shards, Parquet files or one .npy array"
NETWORKS = {
    "lpips": "LPIPS (Alex)",
    "lpips_alex": "LPIPS (Alex)",
    "lpips_vgg": "LPIPS (VGG)",
    "inception": "FID's Inception",
    "inception_classifier": "Inception's last layer, for the Inception Score",
    "classifier": "EfficientNet-lite0",
}
"""Networks whose files of weights can be named, by flag."""
MODEL_HELP = "packaged model, .safetensors file, folder of a run, checkpoint, or released .pth"


def add_model_arguments(parser: argparse.ArgumentParser, flag: bool = True) -> None:
    """Add the arguments that say which model; flag: by --model, where the command does not name it otherwise."""
    group = parser.add_argument_group("model")
    if flag:
        group.add_argument("--model", default=PACKAGED, metavar="MODEL", help=f"{MODEL_HELP} (default: %(default)s)")
    add_device_argument(group)
    add_pth_arguments(group)


def add_device_argument(group: Any) -> None:
    """Add ``--device``, by default ``auto``; the arguments have the name of a device, never ``auto`` itself."""
    shown = f"auto, cuda, cuda:1, mps, xpu or cpu (default: auto, which is {best_device()} here)"
    group.add_argument("--device", type=resolve_device, default=AUTO, help=shown)


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="picture files, folders (searched through), or quoted patterns"
    )
    parser.add_argument(
        "--fit",
        choices=FITS[:3],  # the fourth is that of --size original
        default="crop",
        help="how a picture gets the model's size: crop cuts the centre out, pad keeps all of it with its edges "
        "repeated, stretch keeps all of it and loses its proportions (default: crop)",
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="height and width that pictures are brought to, multiples of the model's patch (default: its own); "
        "or original: each as it is, with a model that codes any size",
    )


def add_sampling_arguments(
    parser: argparse.ArgumentParser, seed_help: str = "starting noise, the same for all pictures"
) -> None:
    group = parser.add_argument_group("sampling", "defaults are stored with the model")
    group.add_argument("--steps", type=steps, metavar="N", help="steps of the decoder: fewer are faster and blurred")
    group.add_argument("--rho", type=rho, metavar="RHO", help="where the steps lie: 1 evenly, more nearer the picture")
    group.add_argument("--guidance", type=finite, metavar="SCALE", help="strength of guidance; 1 is none and faster")
    group.add_argument(
        "--interval", type=finite, nargs=2, metavar=("LOW", "HIGH"), help="noise levels from 0 to 1 where guidance acts"
    )
    add_solver_argument(group)
    group.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{seed_help} (default: 0)")


def add_solver_argument(group: Any, flag: str = "--solver") -> None:
    group.add_argument(flag, choices=get_args(Solver), help="euler, or heun, which asks the decoder twice a step")


def add_output_arguments(
    parser: argparse.ArgumentParser,
    out: str | None = OUT,
    force: str = "overwrite results that exist; without it nothing is done",
) -> None:
    shown = f"folder for the results, made if need be (default: {out or OUT})"
    parser.add_argument("--out", type=Path, default=out and Path(out), metavar="DIR", help=shown)
    parser.add_argument("--force", action="store_true", help=force)


def add_data_arguments(
    parser: argparse.ArgumentParser, data: str | None = DATA_HELP, count: str = "--limit", **count_settings: Any
) -> None:
    """Add DATA, unless its help is None, --split, and the flag ``count`` of how many pictures, whose default and help
    may be others."""
    if data:
        parser.add_argument("data", metavar="DATA", help=data)
    parser.add_argument("--split", metavar="NAME", help="part of the data (default: validation, or all without parts)")
    settings: dict[str, Any] = {"type": positive, "metavar": "N", "help": "only the first N pictures (default: all)"}
    parser.add_argument(count, **(settings | count_settings))


def add_weights_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add a flag for each network that measures, for the file of its weights: "lpips", "inception", ..."""
    group = parser.add_argument_group("networks that measure", "files of weights where none are installed")
    for name in names:
        what = f"weights of {NETWORKS[name]}"
        group.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=what)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="pictures at a time (default: 16)")
    add_json_argument(parser)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, to stdout")


def add_precision_arguments(parser: Any, of: str = "the weights", passes: str = "the model's passes") -> None:
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32", help=f"of {of} (default: fp32)")
    shown = f"compile {passes} for whole batches; the last is filled up"
    parser.add_argument("--compile", action="store_true", help=shown)


def made_ready(model: FlowMo, arguments: argparse.Namespace) -> FlowMo:
    """Return the model itself, in the precision of the arguments and compiled where they say so."""
    if arguments.precision != "fp32" or arguments.compile:
        chunk = arguments.batch_size if arguments.compile else None
        model.prepare(dtype=PRECISIONS[arguments.precision], compile=arguments.compile, chunk_size=chunk)
    return model


def load_model(arguments: argparse.Namespace) -> FlowMo:
    """Return the model that the arguments name, on their device. Raises WeightsError or ConfigError."""
    return load_named(arguments, arguments.model, arguments.raw_weights, find_device(arguments.device))


def load_tokenizer(arguments: argparse.Namespace) -> FlowMo:
    """Return :func:`load_model`'s for a command that needs tokens. Raises ConfigError for a model of a continuous
    latent."""
    model = load_model(arguments)
    model.require_tokens()
    return model


def load_tokenizers(arguments: argparse.Namespace) -> list[FlowMo]:
    """Return :func:`load_all`'s for a command that needs tokens. Raises ConfigError for a continuous latent."""
    models = load_all(arguments)
    for model in models:
        model.require_tokens()
    return models


def load_named(
    arguments: argparse.Namespace | None, name: str, raw_weights: bool = False, device: torch.device | str = "cpu"
) -> FlowMo:
    """Return the model ``name`` on a device; of a released .pth the arguments say how many tokens it has, and so on.

    raw_weights: of a released .pth, those that are not averaged. Raises WeightsError or ConfigError.
    """
    extra = {
        flag: getattr(arguments, flag)
        for flag in ("num_tokens", "image_size", "bits_per_group")
        if getattr(arguments, flag, None) is not None
    }
    released = Path(name).suffix in (".pth", ".pt")
    if (extra or raw_weights) and not released:
        raise ConfigError(f"--pth is for released .pth files; {name} says these things itself. Did you mean --size?")
    if (folder := checkpoint_folder(name)) is not None:
        from ..training.start import averaged_model  # only here: it takes long to import

        return averaged_model(folder).to(device)
    return load(name, ema=not raw_weights, device=device, **extra)


def load_all(arguments: argparse.Namespace) -> list[FlowMo]:
    """Return the models of --models, on their device. Raises WeightsError or ConfigError."""
    device = find_device(arguments.device)
    return [load_named(arguments, name, arguments.raw_weights, device) for name in arguments.models]


def find_device(name: str) -> torch.device:
    """Raises ConfigError unless tensors can be put there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--device {name} cannot be used here ({reason[:90]}); try --device cpu") from None
    return device


def coded_size(arguments: argparse.Namespace, config: FlowMoConfig) -> tuple[int, int]:
    """Return the (height, width) of --size, or the model's. Raises ImageError for one that the model cannot take,
    ConfigError for ``--size original`` in a command whose images are all of one size."""
    if arguments.size == ORIGINAL:
        raise ConfigError("--size original is for pictures one by one; name a height and width here")
    chosen = arguments.size or (config.image_size, config.image_size)
    check_image_size(chosen, config)
    tell_other_size(chosen, config)
    return chosen


def data_name(data: str) -> str:
    """Return what a result calls a data set: no folders of this machine."""
    return data if ":" in data else Path(data).resolve().name


def tell_other_size(chosen: tuple[int, int], config: FlowMoConfig) -> None:
    """Print a warning for a size that a model without a transform was not trained at, with how much is lost."""
    own = config.image_size
    if config.transform is None and chosen != (own, own):
        ratio = math.sqrt(chosen[0] * chosen[1]) / own
        print(
            f"warning: --size {chosen[0]}x{chosen[1]}: the model was trained at {own}x{own} pixels, and its images are "
            f"worse the further a size is from that{loss_at(ratio)}. Leave out --size, or use a model with a "
            "transform",
            file=sys.stderr,
        )


def own_size(arguments: argparse.Namespace, config: FlowMoConfig) -> tuple[int, int] | None:
    """Return :func:`coded_size`, or None where each picture keeps its own. ConfigError for a model of one size."""
    if arguments.size != ORIGINAL:
        return coded_size(arguments, config)
    if config.transform is None:
        raise ConfigError(
            f"--size original: the model codes {config.image_size}x{config.image_size} pixels; use a model with a "
            "transform, such as those of the preset flowmo-mini"
        )
    if arguments.fit != "crop":
        raise ConfigError(f"--size original keeps all of a picture as it is; leave out --fit {arguments.fit}")
    return None


def sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of ``FlowMo.detokenize``."""
    return {
        "num_steps": arguments.steps,
        "rho": arguments.rho,
        "guidance_scale": arguments.guidance,
        "guidance_interval": arguments.interval and tuple(arguments.interval),
        "solver": arguments.solver,
        "seed": arguments.seed,
    }


def sampler_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of a SamplerConfig that the arguments name."""
    return {name: value for name, value in sampling(arguments).items() if name != "seed" and value is not None}


def sampler_of(arguments: argparse.Namespace, model: FlowMo) -> SamplerConfig:
    """Return the model's own sampler with what the arguments say. Raises ConfigError."""
    return replace(model.config.sampler, **sampler_given(arguments))


def tell_idle_guidance(sampler: SamplerConfig, flag: str) -> None:
    """Print a note where the guidance that ``flag`` asked for acts at none of the sampler's noise levels."""
    guidance = Guidance(sampler.guidance_scale, sampler.guidance_interval)
    levels = shifted_grid(sampler.num_steps, sampler.rho)[:-1].tolist()
    if guidance.scale != 1 and not any(map(guidance.acts, levels)):
        low, high = guidance.interval
        print(
            f"note: {flag} {guidance.scale:g} changes nothing: it acts between the noise levels {low:.2f} and "
            f"{high:.2f}, where none of this decoder's {len(levels)} steps begins; ask for more steps",
            file=sys.stderr,
        )


def sampling_used(arguments: argparse.Namespace, config: FlowMoConfig) -> dict[str, Any]:
    """Return :func:`sampling` with the model's defaults filled in, as JSON data."""
    chosen = {name: value for name, value in sampling(arguments).items() if value is not None}
    if chosen.get("rho") == math.inf:
        chosen["rho"] = "inf"  # as in a stored configuration; JSON has no such number
    return to_dict(config.sampler) | chosen


def check_targets(targets: Iterable[Path], sources: Iterable[Path], force: bool) -> None:
    """Raise ConfigError, before any work and naming files, when results exist already and may not be overwritten, and
    always when one would fall on a file that it is made from."""
    targets = list(targets)
    for folder in {path.parent for path in targets}:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file, so no results can go into it; give another folder")
    existing = [path for path in targets if path.exists()]
    originals = {path.resolve() for path in sources} if existing else set()
    own = [path for path in existing if path.resolve() in originals]
    if own:
        raise ConfigError(f"a result would overwrite its own source ({_some(own)}); give another --out")
    if existing and not force:
        raise ConfigError(
            f"{len(existing)} result{'s exist' if len(existing) > 1 else ' exists'} already ({_some(existing)}) and "
            "nothing was done; give another --out, or --force to overwrite"
        )


def leave_out_results(paths: list[Path], given: list[str], out: Path) -> list[Path]:
    """Return the paths without pictures in ``out``, as far as they were found by searching a folder around it."""
    inside, named = out.resolve(), {user_path(text).resolve() for text in given}
    if any(inside == path or inside in path.parents for path in named):
        return paths
    left = [path for path in paths if inside not in path.resolve().parents]
    if not left:
        raise ImageError(f"no pictures but earlier results in {out}; name others, or give another --out")
    return left


class Progress:
    """A bar on stderr where that is a terminal, and the bad files, each named there and kept for the result."""

    def __init__(self, total: int, unit: str = "pictures") -> None:
        self.bad: list[dict[str, str]] = []
        self.bad_count = 0
        self.total, self.unit, self.bar = total, unit, None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm

                self.bar = tqdm(total=total, unit=f" {unit}", leave=False)
            except ImportError:  # a machine with the core alone
                pass

    def expect(self, total: int) -> None:
        """Set how many there are, where that is known only later."""
        self.total = total
        if self.bar is not None:
            self.bar.total = total
            self.bar.refresh()

    def advance(self, count: int = 1) -> None:
        if self.bar is not None:
            self.bar.update(count)

    def skip(self, file: Path | str, error: FlowMoError, count: int = 1) -> None:
        """Name a file that cannot be used, and go on. count: the pictures in it."""
        self.bad_count += count
        self.bad.append({"file": str(file), "reason": str(error)})
        self.say(plain(f"skipped {error if str(file) in str(error) else f'{file}: {error}'}"))
        self.advance(count)

    def say(self, line: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        print(line, file=sys.stderr, flush=True)

    def finish(self) -> int:
        """Close the bar and count the bad files; the exit code of the command."""
        if self.bar is not None:
            self.bar.close()
        if self.bad_count:
            print(f"{self.bad_count} of {self.total} {self.unit} could not be used", file=sys.stderr)
        return 1 if self.bad else 0


def print_table(header: list[str], rows: list[list[str]], width: int = 100, names: int = 1) -> None:
    """Print columns as wide as they need, the first to the left, the others to the right. A table wider than ``width``
    characters comes in several, each with the first ``names`` columns, which tell the rows apart; of the later ones
    rows that have no number are left out."""
    blocks, widths = list[list[int]]([[]]), [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    first = widths[0] + sum(widths[k] + 2 for k in range(1, names))
    for i in range(names, len(header)):
        if blocks[-1] and first + sum(widths[k] + 2 for k in [*blocks[-1], i]) > width:
            blocks.append([])
        blocks[-1].append(i)
    for number, block in enumerate(blocks):
        shown = [row for row in rows if not number or any(row[i] not in ("-", "") for i in block)]
        for row in [[""] * len(header)] * bool(number) + [header, *shown]:
            cells = (row[i].rjust(widths[i]) for i in [*range(1, names), *block])
            print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())


def print_json(content: Any) -> None:
    """Print a result to stdout, with null in the place of numbers that JSON has not."""
    print(json_text(content))


def _some(paths: list[Path], count: int = 5) -> str:
    more = f" and {len(paths) - count} more" if len(paths) > count else ""
    return ", ".join(map(str, paths[:count])) + more
