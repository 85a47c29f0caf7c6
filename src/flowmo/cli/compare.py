"""``flowmo compare``: measures models, image codecs and tokenizers of others at equal bytes, on the same pictures.

Codecs are given numbers of bytes and stand there at their best: of several scales and qualities the one nearest to the
picture by LPIPS (Alex). It writes comparison.json, table.md, a plot a measure, and the paper's Figure 1. A killed
command goes on where it was when it is given again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..comparison.codecs import CODECS, COUNTED
from ..comparison.inputs import ALWAYS, DEFAULT, METRICS
from ..comparison.peers.adapter import list_peers
from ..comparison.published import COMPARABILITY
from ..comparison.report import RESULT
from ..comparison.table import NOTES, code_costs, table
from ..comparison.transform_code import NAME as TRANSFORM
from ..errors import ConfigError
from ..files import folder_in_words
from ..metrics.networks import WeightFiles
from ..pipelines.comparison import ComparisonRequest, compare_named
from ..progress import Progress
from .arguments import common
from .arguments.fields import add_flag, fields_of
from .arguments.models import load_options
from .arguments.values import positive, seed, size
from .printing import print_json, print_table

OUT = "flowmo-compare"
FILES = ("lpips_alex", "lpips_vgg", "inception", "classifier")
PEERS = (
    "tokenizers of others: NAME=FILE for one of Table 1 as its authors publish it ('list' names them and their files); "
    "or NAME=torchscript:ENCODER,DECODER,bits_per_token=N or NAME=diffusers:FOLDER or "
    "NAME=module:function,bits_per_image=N or NAME=module:encode,decode=module:decode,bits_per_token=N"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", nargs="?", help=common.DATA_HELP)
    common.add_data_arguments(parser, data=None)
    what = "our models, with their stored samplers; none after the flag leaves them out"
    common.add_models_arguments(parser, what, nargs="*")
    what = f"image codecs to compare with: {', '.join(CODECS)}; or {TRANSFORM}, a closed-form code fitted on the "
    parser.add_argument("--codecs", nargs="*", default=[], metavar="CODEC", help=f"{what}training split")
    what = "the file of flowmo fit-transform that the codec transform takes"
    parser.add_argument("--transform", metavar="FILE", help=what)
    what = "bytes a picture that codecs, thumbnails and models of any rate may take (default: what the models take)"
    add_flag(parser, "--bytes", positive, what, nargs="+")
    what = "what of a codec's file counts: all of it, the payload without headers, or each in turn"
    add_flag(parser, "--counted", ("both", *COUNTED), what, "both")
    parser.add_argument("--peers", nargs="+", default=[], metavar="SPEC", help=PEERS)
    what = "run the code in the files and modules of --peers: it may do anything"
    parser.add_argument("--trust", action="store_true", help=what)
    what = "also each model in one step, and with the codes of other pictures"
    parser.add_argument("--controls", action="store_true", help=what)
    add_flag(parser, "--size", size, "of the pictures (default: what the models were trained on)")
    add_flag(parser, "--seed", seed, "picture i is sampled from seed N + i", 0)
    what = f"beside PSNR, SSIM and LPIPS (Alex), of {', '.join(METRICS)}"
    add_flag(parser, "--metrics", (*ALWAYS, *METRICS), what, list(DEFAULT), nargs="*", metavar="NAME")
    add_flag(parser, "--workers", positive, "threads that code (default: one a core)")
    common.add_output_arguments(parser, OUT, force="overwrite a finished comparison in that folder")
    common.add_run_arguments(parser)
    common.add_weights_arguments(parser, *FILES)


def run(arguments: argparse.Namespace) -> int:
    if arguments.peers == ["list"]:
        return _list_peers(arguments.json)
    if arguments.data is None:
        raise ConfigError("say which pictures to compare on: flowmo compare DATA")
    request = _request(arguments)
    progress, bar = Progress(0), Progress(0, "pictures coded")

    def coded(done: int, total: int) -> None:
        if done == 1:
            bar.expect(total)
        bar.advance()
        if bar.bar is None and total >= 100 and done % (total // 10) == 0:
            progress.say(f"coded {done} of {total} pictures by codecs")

    try:
        found, files = compare_named(request, progress.skip, progress.say, coded)
    finally:
        bar.finish()
    progress.expect(len(found.images.places) + progress.bad_count)
    code = progress.finish()
    if arguments.json:
        rows = [asdict(row) for row in found.rows]
        print_json({"result": str(request.out / RESULT), "rows": rows, "bad": progress.bad})
    else:
        print_table(*table(found.rows), names=2)
        print("", *code_costs(found.rows), sep="\n")
        print(f"\n{NOTES}\n{COMPARABILITY}\n\n{', '.join(files)} are in {folder_in_words(request.out)}")
    return code


def _request(arguments: argparse.Namespace) -> ComparisonRequest:
    made: dict[str, Any] = {
        "load": load_options(arguments),
        "counted": COUNTED if arguments.counted == "both" else (arguments.counted,),
        "files": WeightFiles(**fields_of(arguments, WeightFiles)),
        "command": arguments.command_line,
    }
    return ComparisonRequest(**fields_of(arguments, ComparisonRequest) | made)


def _list_peers(as_json: bool) -> int:
    header, rows = ["name", "tokenizer", "file", "published at huggingface.co"], list_peers()
    if as_json:
        print_json([{"name": n, "title": t, "files": f.split(" + "), "source": s} for n, t, f, s in rows])
    else:
        print_table(header, rows)
    return 0
