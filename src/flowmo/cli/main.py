"""The ``flowmo`` command: parses arguments, calls one function, prints errors in the user's words."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from .._version import __version__
from ..errors import FlowMoError
from ..text import plain_output, what_is_kept
from .arguments.flags import likely_flag, move_model_settings, tell_old_names, unify
from .arguments.subcommands import Parser, add_commands
from .printing import is_first

COMMANDS = {
    "reconstruct": "code images and decode them again, with a table of how close they are",
    "tokenize": "code pictures as .flowmo files, or many in one shard",
    "detokenize": "decode the images of .flowmo files and shards",
    "info": "say what a model, a token file, a shard or a run is",
    "fit-transform": "fit the best closed-form code of a data set, from which training starts",
    "train": "train a tokenizer (Stage 1A)",
    "posttrain": "train a decoder on its own samples (Stage 1B)",
    "distill": "train a decoder to sample in one or a few steps",
    "train-generator": "train a generator of tokens by class (Stage 2)",
    "generate": "pictures of classes, by a generator and its tokenizer",
    "evaluate": "measure models on a data set by a named protocol",
    "evaluate-generator": "FID, sFID, precision and recall of generated pictures",
    "likelihood": "how likely a model finds images, by the reverse ODE",
    "figure": "measure and draw a figure of the paper",
    "compare": "models, image codecs and other tokenizers at equal bytes",
    "gallery": "write a page to look at pictures, models and codecs with",
    "coordinate-check": "show that learning rates hold at any width (muP)",
    "app": "serve a page for the browser that codes photographs and draws classes",
    "weights": "list the weights of other people's networks that FlowMo uses, and fetch them",
    "bench": "measure how fast a model encodes, decodes or trains",
}
"""Each is the module of its name, imported when it is asked for."""
ALSO = {
    "encode": "tokenize", "compress": "tokenize", "decode": "detokenize", "decompress": "detokenize",
    "roundtrip": "reconstruct", "eval": "evaluate", "test": "evaluate", "measure": "evaluate", "benchmark": "bench",
    "speed": "bench", "sample": "generate", "draw": "generate", "finetune": "posttrain",
    "fine-tune": "posttrain", "post-train": "posttrain", "distil": "distill", "show": "info", "inspect": "info",
    "fid": "evaluate-generator", "plot": "figure", "fit": "train",
}  # fmt: skip
"""What other programs call them, for a suggestion."""
RUNS = ("train", "posttrain", "distill", "train-generator")
OUT_OF_MEMORY = "out of memory; try a smaller --batch-size or smaller pictures"
EPILOG = """\
exit codes: 0 all done; 1 some files were bad, the others are done; 2 wrong use, nothing was done

examples:
  flowmo reconstruct photos/              pictures, side by side with the originals, in flowmo-out/
  flowmo tokenize photos/ --out tokens    one .flowmo file a picture
  flowmo detokenize tokens/ --out back    and the pictures again
"""


def build_parser(commands: Iterable[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser of these commands, whose modules are imported."""
    parser = Parser(
        prog="flowmo",
        usage="flowmo [-h] [--version] COMMAND ...",
        description="A picture to a few hundred bytes and back. 'flowmo COMMAND --help' explains each command.",
        epilog=_summaries() + EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"flowmo {__version__}", help="print the version")
    asked = {name: (_module(name), COMMANDS[name]) for name in commands}
    settings = {"dest": "command", "prog": "flowmo", "metavar": "COMMAND", "help": argparse.SUPPRESS}
    for name, command in add_commands(parser, asked, **settings):
        unify(command, name)
    return parser


def main(argv: list[str] | None = None) -> int:
    with plain_output():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    # our own limit is an error (image_utils/decode.py)
    warnings.filterwarnings("ignore", r"Image size \(.* exceeds limit", module="PIL")
    began = time.monotonic()
    command = next((word for word in argv if not word.startswith("-")), None)
    arguments: argparse.Namespace | None = None
    try:
        if argv[:1] == ["help"]:
            argv = [*argv[1:], "--help"]
            command = argv[0] if argv[1:] else None
        if command is not None and command not in COMMANDS:
            print(f"flowmo: there is no command {command!r}{_suggestion(command)}", file=sys.stderr)
            return 2
        if command in (*RUNS, "app") and is_first() and not {"-h", "--help", "--dry-run"} & {*argv}:
            print(f"flowmo {command}: loading PyTorch", file=sys.stderr, flush=True)  # which may take seconds
        parser = build_parser([command] if command else [])
        tell_old_names(parser, argv)
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            return _fail(command or "", _not_taken(parser, argv, unknown))
        move_model_settings(arguments)
        arguments.began = began  # of time.monotonic()
        arguments.command_line = shlex.join(["flowmo", *argv])
        if command is None:
            parser.print_help(sys.stderr)
            return 2
        code: int = _module(command).run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else 0
    except FlowMoError as error:
        return _fail(command, str(error))
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        return _fail(command, f"{error.strerror or error}" + f": {error.filename}" * bool(error.filename))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        return _fail(command, OUT_OF_MEMORY)
    except KeyboardInterrupt:
        kept = what_is_kept(arguments.out if arguments is not None and command in RUNS else None)
        print(f"\nflowmo {command}: stopped; {kept}", file=sys.stderr)
        return 130


def _module(name: str) -> ModuleType:
    return import_module(f".{name.replace('-', '_')}", __package__)


def _suggestion(command: str) -> str:
    near = ALSO.get(command.lower()) or next(iter(difflib.get_close_matches(command.lower(), COMMANDS, n=1)), None)
    return f"; did you mean {near!r}?" if near else "; 'flowmo --help' lists them"


def _not_taken(parser: argparse.ArgumentParser, argv: list[str], unknown: list[str]) -> str:
    """Return what is wrong with words that a command does not take, and what to do about it."""
    flag = next((word.partition("=")[0] for word in unknown if word.startswith("-")), None)
    if flag is None:
        return f"too many names: {shlex.join(unknown)}; '--help' says what the command takes"
    near = likely_flag(parser, argv, flag)
    return f"there is no flag {flag}" + (f"; did you mean {near}?" if near else "; '--help' lists them")


def _summaries() -> str:
    width = max(map(len, COMMANDS)) + 2
    return "commands:\n" + "".join(f"  {name:<{width}}{summary}\n" for name, summary in COMMANDS.items()) + "\n"


def _fail(command: str | None, reason: str) -> int:
    with contextlib.suppress(OSError):  # where stderr itself is full
        print(f"flowmo {command}: {reason}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
