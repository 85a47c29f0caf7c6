"""The ``flowmo`` command: parses arguments, calls one function, prints errors in the user's words."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from types import ModuleType

from PIL import Image

from .. import __version__
from ..errors import FlowMoError
from . import (
    bench,
    compare,
    coordinate_check,
    detokenize,
    distill,
    evaluate,
    evaluate_generator,
    figure,
    gallery,
    generate,
    info,
    likelihood,
    posttrain,
    reconstruct,
    tokenize,
    train,
    train_generator,
)

COMMANDS = {
    "reconstruct": (reconstruct, "code pictures and paint them again, with a table of how close they are"),
    "tokenize": (tokenize, "code pictures as .flowmo files, or many in one shard"),
    "detokenize": (detokenize, "paint the pictures of .flowmo files and shards"),
    "info": (info, "say what a model, a token file, a shard or a run is"),
    "train": (train, "train a tokenizer (Stage 1A)"),
    "posttrain": (posttrain, "train a decoder on what it paints (Stage 1B)"),
    "distill": (distill, "train a decoder to paint in one or a few steps"),
    "train-generator": (train_generator, "train a generator of tokens by class (Stage 2)"),
    "generate": (generate, "pictures of classes, by a generator and its tokenizer"),
    "evaluate": (evaluate, "measure models on a data set by a named protocol"),
    "evaluate-generator": (evaluate_generator, "FID, sFID, precision and recall of generated pictures"),
    "likelihood": (likelihood, "how likely a model finds pictures, by the reverse ODE"),
    "figure": (figure, "measure and draw a figure of the paper"),
    "compare": (compare, "models, image codecs and other tokenizers at equal bytes"),
    "gallery": (gallery, "write a page to look at pictures, models and codecs with"),
    "coordinate-check": (coordinate_check, "show that learning rates hold at any width (muP)"),
    "bench": (bench, "measure how fast a model encodes, decodes or trains"),
}
OUT_OF_MEMORY = "out of memory; try a smaller --batch-size or smaller pictures"
EPILOG = """\
exit codes: 0 all done; 1 some files were bad, the others are done; 2 wrong use, nothing was done

examples:
  flowmo reconstruct photos/              pictures, side by side with the originals, in flowmo-out/
  flowmo tokenize photos/ --out tokens    one .flowmo file a picture
  flowmo detokenize tokens/ --out back    and the pictures again
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowmo",
        usage="flowmo [-h] [--version] COMMAND ...",
        description="A picture to a few hundred bytes and back. 'flowmo COMMAND --help' explains each command.",
        epilog=_summaries() + EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"flowmo {__version__}", help="print the version")
    subparsers = parser.add_subparsers(dest="command", prog="flowmo", metavar="COMMAND", help=argparse.SUPPRESS)
    for name, (module, summary) in COMMANDS.items():
        command = subparsers.add_parser(name, help=summary, description=_description(module), allow_abbrev=False)
        module.add_arguments(command)
    return parser


def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):  # a file name in another encoding must not end the command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is an error (data/decode.py)
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
        arguments.command_line = shlex.join(["flowmo", *(sys.argv[1:] if argv is None else argv)])
        if arguments.command is None:
            parser.print_help(sys.stderr)
            return 2
        code = COMMANDS[arguments.command][0].run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else 0
    except FlowMoError as error:
        return _fail(arguments.command, str(error))
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        return _fail(arguments.command, f"{error.strerror or error}" + f": {error.filename}" * bool(error.filename))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        return _fail(arguments.command, OUT_OF_MEMORY)
    except KeyboardInterrupt:
        return 130


def _summaries() -> str:
    width = max(map(len, COMMANDS)) + 2
    return "commands:\n" + "".join(f"  {name:<{width}}{summary}\n" for name, (_, summary) in COMMANDS.items()) + "\n"


def _description(module: ModuleType) -> str:
    """The docstring without the command's name at its beginning."""
    text = (module.__doc__ or "").partition(": ")[2].replace("`", "")
    return text[:1].upper() + text[1:]


def _fail(command: str, reason: str) -> int:
    print(f"flowmo {command}: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
