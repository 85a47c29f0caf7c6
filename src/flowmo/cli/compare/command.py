"""The flags of the comparison, and its course."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from ...comparison.adapters import Peer, ThumbnailPeer, at_rates, open_peer
from ...comparison.codecs import CODECS, COUNTED, get_codec
from ...comparison.compare import Row, compare, control_methods, peer_method
from ...comparison.peers.adapter import list_peers, published_peer
from ...comparison.published import COMPARABILITY
from ...comparison.table import NOTES, table
from ...errors import ConfigError
from ...evaluation.evaluator import Evaluator
from ...evaluation.feature_cache import feature_caches
from ...evaluation.result_store import ResultStore
from ...evaluation.session import PARTIAL, hold
from ...viewing.plots import need_matplotlib
from ...weights.load import PACKAGED
from .. import common
from . import inputs, output, transform

OUT = "flowmo-compare"
NAMES = {
    "lpips_alex": "LPIPS (Alex)",
    "lpips_vgg": "LPIPS (VGG)",
    "inception": "FID's Inception",
    "classifier": "EfficientNet-lite0",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help="folder of pictures, tar, shards, Parquet files, or one .npy array"
    )
    parser.add_argument(
        "--models",
        nargs="*",
        default=[PACKAGED],
        metavar="MODEL",
        help=f"our models, with their stored samplers; none after the flag leaves them out (default: {PACKAGED})",
    )
    parser.add_argument(
        "--codecs",
        nargs="*",
        default=[],
        metavar="CODEC",
        help=f"image codecs to compare with: {', '.join(CODECS)}; or "
        f"{transform.NAME}, the best linear code, fitted on the training split",
    )
    parser.add_argument(
        "--transform", metavar="FILE", help="the file of flowmo fit-transform that the codec transform takes"
    )
    parser.add_argument(
        "--bytes",
        type=common.positive,
        nargs="+",
        metavar="N",
        help="bytes a picture that codecs, thumbnails and models of any rate may take (default: what the models take)",
    )
    parser.add_argument(
        "--counted",
        choices=("both", *COUNTED),
        default="both",
        help="what of a codec's file counts: all of it, the payload without headers, or each in turn (default: both)",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        default=[],
        metavar="SPEC",
        help="tokenizers of others: NAME=FILE for one of Table 1 as its authors publish it ('list' names them "
        "and their files); or NAME=torchscript:ENCODER,DECODER,bits_per_token=N or NAME=diffusers:FOLDER or "
        "NAME=module:function,bits_per_image=N or NAME=module:encode,decode=module:decode,bits_per_token=N",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the code in the files and modules of --peers: it may do anything",
    )
    parser.add_argument(
        "--controls", action="store_true", help="also each model in one step, and with the codes of other pictures"
    )
    parser.add_argument("--split", metavar="NAME", help="part of the data (default: validation, or all without parts)")
    parser.add_argument("--limit", type=common.positive, metavar="N", help="only the first N pictures (default: all)")
    parser.add_argument(
        "--size", type=common.size, metavar="HxW", help="of the pictures (default: what the models were trained on)"
    )
    parser.add_argument(
        "--seed", type=common.seed, default=0, metavar="N", help="picture i is sampled from seed N + i (default: 0)"
    )
    parser.add_argument(
        "--metrics",
        nargs="*",
        choices=inputs.METRICS,
        default=list(inputs.METRICS),
        metavar="NAME",
        help=f"beside PSNR, SSIM and LPIPS (Alex), of {', '.join(inputs.METRICS)} (default: all)",
    )
    parser.add_argument("--workers", type=common.positive, metavar="N", help="threads that code (default: one a core)")
    shown = f"folder for the results, made if need be (default: {OUT})"
    parser.add_argument("--out", type=Path, default=Path(OUT), metavar="DIR", help=shown)
    parser.add_argument("--force", action="store_true", help="overwrite a finished comparison in that folder")
    common.add_run_arguments(parser)
    common.add_model_arguments(parser, flag=False)
    files = parser.add_argument_group("networks that measure", "files of weights where none are installed")
    for name in inputs.FILES:
        files.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=f"weights of {NAMES[name]}")


def run(arguments: argparse.Namespace) -> int:
    if arguments.peers == ["list"]:
        header, rows = ["name", "tokenizer", "file", "published at huggingface.co"], list_peers()
        if arguments.json:
            common.print_json([{"name": n, "title": t, "files": f.split(" + "), "source": s} for n, t, f, s in rows])
        else:
            common.print_table(header, rows)
        return 0
    if arguments.data is None:
        raise ConfigError("say which pictures to compare on: flowmo compare DATA")
    common.check_targets([arguments.out / output.RESULT], [], arguments.force)
    need_matplotlib()
    with hold(arguments.out):
        return _compare(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    started, out = time.time(), arguments.out
    device = common.find_device(arguments.device)
    codecs = [get_codec(name) for name in dict.fromkeys(arguments.codecs) if name != transform.NAME]
    models = inputs.load_models(arguments)
    peers: list[Peer] = [published_peer(spec, device) or open_peer(spec, arguments.trust) for spec in arguments.peers]
    size = inputs.picture_size(arguments, models)
    search = inputs.search(arguments, models, size)
    progress = common.Progress(0)
    networks = inputs.load_metrics(arguments, device, size, progress.say)
    pictures = inputs.load_pictures(arguments, size, progress)
    features = feature_caches(networks, out / PARTIAL)
    evaluator = Evaluator(pictures.images, networks, arguments.batch_size, device, features)

    ours = [peer for name, model in models for peer in at_rates(name, model, search.targets, size)]
    if transform.NAME in arguments.codecs:
        models = [*models, (transform.NAME, transform.transform_code(arguments, search.targets, size, progress.say))]
        peers = [*at_rates(*models[-1], search.targets, size), *peers]
    named: list[Peer] = [*ours, *peers, *(ThumbnailPeer(target) for target in search.targets)]
    seeds = [arguments.seed + place for place in pictures.places]
    methods = [peer_method(peer, size, seeds) for peer in named]
    for peer in ours if arguments.controls else ():
        methods += control_methods(peer, pictures.images, seeds)
    store = ResultStore(out / "progress.jsonl")
    distance = inputs.nearest(networks, device)
    methods += inputs.code(arguments, codecs, pictures, search, distance, store, progress)

    def finished(row: Row) -> None:
        progress.say(output.in_words(row))
        store.add(["seconds", started], time.time() - started)

    rows = compare(evaluator, methods, store, finished)
    code = progress.finish()
    done = output.Run(rows, models, codecs, search, networks, pictures, size, progress.bad, store)
    files = output.write(arguments, done)
    for cache in features.values():
        cache.remove()
    if arguments.json:
        result = {"result": str(out / output.RESULT), "rows": [asdict(row) for row in rows], "bad": progress.bad}
        common.print_json(result)
    else:
        common.print_table(*table(rows))
        print(f"\n{NOTES}\n{COMPARABILITY}\n\n{', '.join(files)} are in {out}")
    return code
