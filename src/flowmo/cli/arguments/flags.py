"""One meaning for a flag in every command: the names that all commands share, and old names, which keep working.

``--model`` is a model, ``--config`` a model's settings, ``--count`` a number of images, ``--steps`` steps of the
decoder, ``-o`` the same as ``--out``. What a released .pth file does not say itself is told by ``--pth NAME=VALUE``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ...setting_names import RENAMED as SETTINGS

RENAMED = (
    ("--limit", "--count", ("tokenize", "evaluate", "evaluate-generator", "compare", "gallery")),
    ("-n", "--count", ("generate",)),
    ("--model", "--config", ("train", "train-generator", "coordinate-check", "bench")),
    ("--models", "--model", ("compare", "gallery", "figure")),
    ("--steps", "--mask-steps", ("generate",)),
    ("--steps", "--updates", ("coordinate-check",)),
    ("--check-count", "--validation-count", ("posttrain", "distill")),
    ("--check-skip", "--validation-skip", ("posttrain", "distill")),
)
"""An old name, its new one, and the commands where it is one."""
PTH = {
    "raw": "--raw-weights",
    "num_tokens": "--num-tokens",
    "image_size": "--image-size",
    "bits_per_group": "--bits-per-group",
}
"""Settings of a released .pth file, and the flags that they were."""


def unify(parser: argparse.ArgumentParser, command: str) -> None:
    """Give the flags of a command, and of the commands inside it, their names; the old ones still parse."""
    for each in _parsers(parser):
        actions = each._option_string_actions
        for old, new, commands in RENAMED:
            settings = old != "--model" or "NAME=VALUE" in str(actions[old].metavar) if old in actions else False
            if command in commands and settings and new not in actions:
                action = actions[new] = actions[old]
                action.option_strings = [new if name == old else name for name in action.option_strings]
            elif command in commands and new in actions:
                actions.setdefault(old, actions[new])
        if "--out" in actions and "-o" not in actions:
            actions["-o"] = actions["--out"]
            actions["--out"].option_strings = ["--out", "-o"]


def tell_old_names(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Print a line on stderr for each old name that a command line has."""
    for each in _parsers(parser, words):
        for word in dict.fromkeys(word.partition("=")[0] for word in words):
            action = each._option_string_actions.get(word)
            if action is None or (word in action.option_strings and not isinstance(action, _OldPth)):
                continue
            now = f"--pth {action.name}=..." if isinstance(action, _OldPth) else action.option_strings[0]
            print(f"note: {word} is now {now}", file=sys.stderr)
    for setting in dict.fromkeys(word.partition("=")[0] for word in words if "=" in word):
        if setting in SETTINGS:
            print(f"note: {setting} is now {SETTINGS[setting]}", file=sys.stderr)


def likely_flag(parser: argparse.ArgumentParser, words: Sequence[str], flag: str) -> str | None:
    """Return the flag of a command line that was probably meant by one that the command does not have, None if none."""
    known = [name for each in _parsers(parser, words) for name in each._option_string_actions if name[:2] == "--"]
    parts = flag.strip("-").split("-")
    inside = [name for name in known if name.strip("-") in parts]
    near = difflib.get_close_matches(flag.strip("-"), [name.strip("-") for name in known], n=1, cutoff=0.8)
    return inside[0] if inside else f"--{near[0]}" if near else None


def move_model_settings(arguments: argparse.Namespace) -> None:
    """Move settings ``model.NAME=VALUE`` among those of ``--set`` to those of ``--config``."""
    given, config = getattr(arguments, "set", None), getattr(arguments, "model", None)
    if isinstance(given, list) and isinstance(config, list):
        arguments.set = [text for text in given if not text.startswith("model.")]
        arguments.model = [*config, *(text.removeprefix("model.") for text in given if text.startswith("model."))]


def add_pth_arguments(group: Any) -> None:
    """Add ``--pth NAME=VALUE``, which sets raw_weights, num_tokens, image_size, bits_per_group, and the old flags."""
    group.add_argument(
        "--pth",
        nargs="+",
        action=_Pth,
        metavar="NAME=VALUE",
        help="what a released .pth file does not say: num_tokens (256), image_size (256), bits_per_group (9 for tokens "
        "of 18 bits, 14 for 56), raw=true for the raw weights instead of their average",
    )
    group.add_argument(PTH["raw"], nargs=0, action=_OldPth, dest="raw_weights", default=False, help=argparse.SUPPRESS)
    for name in ("num_tokens", "image_size", "bits_per_group"):
        group.add_argument(PTH[name], action=_OldPth, dest=name, help=argparse.SUPPRESS)


def _set_pth(parser: argparse.ArgumentParser, namespace: argparse.Namespace, name: str, value: str) -> None:
    if name == "raw":
        if value.lower() not in ("true", "false"):
            parser.error(f"--pth raw={value}: give raw=true or raw=false")
        namespace.raw_weights = value.lower() == "true"
    elif name not in PTH:
        parser.error(f"--pth {name}={value}: there are {', '.join(PTH)}")
    elif not value.isdecimal() or not 1 <= int(value) < 10**9:
        parser.error(f"--pth {name}={value}: it is not a whole number of at least 1")
    else:
        setattr(namespace, name, int(value))


class _Pth(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        for text in values:
            name, _, value = text.partition("=")
            _set_pth(parser, namespace, name, value)


class _OldPth(argparse.Action):
    @property
    def name(self) -> str:
        return next(name for name, flag in PTH.items() if flag in self.option_strings)

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        _set_pth(parser, namespace, self.name, values if isinstance(values, str) else "true")


def _parsers(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those inside it; with ``words``, inside are those that the words name."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                if words is None or name in words:
                    yield from _parsers(inner, words)
