"""``flowmo compare``: models, image codecs and tokenizers of others at equal bytes, on the same pictures. Codecs are
given numbers of bytes and stand there at their best: of several scales and qualities the one nearest to the picture by
LPIPS (Alex). Writes comparison.json, table.md, a plot a measure, and the paper's Figure 1. A killed command goes on
where it was when it is given again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict

from ..comparison.adapters import FlowMoPeer, Peer, ThumbnailPeer, at_rates, open_peer
from ..comparison.codecs import CODECS, COUNTED, Codec, Distance, get_codec
from ..comparison.coded import Search, code_all
from ..comparison.compare import Method, Row, codec_methods, compare, control_methods, peer_method
from ..comparison.inputs import ALWAYS, DEFAULT, METRICS, byte_targets, common_size, comparison_networks, nearest
from ..comparison.peers.adapter import list_peers, published_peer
from ..comparison.published import COMPARABILITY
from ..comparison.report import RESULT, STORE, Comparison, in_words, write_comparison
from ..comparison.table import NOTES, code_costs, table
from ..data import Images, read_first
from ..errors import ConfigError
from ..evaluation.evaluator import Evaluator
from ..evaluation.feature_cache import feature_caches
from ..evaluation.result_store import ResultStore
from ..evaluation.results import numbered, short_name
from ..evaluation.session import PARTIAL, hold
from ..metrics.networks import WeightFiles
from ..viewing.plots import need_matplotlib
from ..weights.load import PACKAGED
from . import common
from .fields import fields_of
from .transform_code import NAME as TRANSFORM
from .transform_code import transform_code

OUT = "flowmo-compare"
FILES = ("lpips_alex", "lpips_vgg", "inception", "classifier")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", nargs="?", help=common.DATA_HELP)
    common.add_data_arguments(parser, data=None)
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
        f"{TRANSFORM}, the best linear code, fitted on the training split",
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
    parser.add_argument(
        "--size", type=common.size, metavar="HxW", help="of the pictures (default: what the models were trained on)"
    )
    parser.add_argument(
        "--seed", type=common.seed, default=0, metavar="N", help="picture i is sampled from seed N + i (default: 0)"
    )
    parser.add_argument(
        "--metrics",
        nargs="*",
        choices=(*ALWAYS, *METRICS),
        default=list(DEFAULT),
        metavar="NAME",
        help=f"beside PSNR, SSIM and LPIPS (Alex), of {', '.join(METRICS)} (default: {' '.join(DEFAULT)})",
    )
    parser.add_argument("--workers", type=common.positive, metavar="N", help="threads that code (default: one a core)")
    common.add_output_arguments(parser, OUT, force="overwrite a finished comparison in that folder")
    common.add_run_arguments(parser)
    common.add_model_arguments(parser, flag=False)
    common.add_weights_arguments(parser, *FILES)


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
    common.check_targets([arguments.out / RESULT], [], arguments.force)
    need_matplotlib()
    with hold(arguments.out):
        return _compare(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    started, out = time.time(), arguments.out
    device = common.find_device(arguments.device)
    codecs = [get_codec(name) for name in dict.fromkeys(arguments.codecs) if name != TRANSFORM]
    names = numbered([short_name(name) for name in arguments.models])
    models = list(zip(names, common.load_tokenizers(arguments), strict=True))
    configs = [model.config for _, model in models]
    peers: list[Peer] = [published_peer(spec, device) or open_peer(spec, arguments.trust) for spec in arguments.peers]
    size = common_size(configs, arguments.size)
    for config in dict.fromkeys(configs):
        common.tell_other_size(size, config)
    targets = byte_targets(configs, size, arguments.bytes)
    if not targets and arguments.codecs:
        raise ConfigError("there is no model to take numbers of bytes from, so say them: --bytes")
    search = Search(targets, COUNTED if arguments.counted == "both" else (arguments.counted,))
    progress = common.Progress(0)
    networks = comparison_networks(
        arguments.metrics, size, device, WeightFiles(**fields_of(arguments, WeightFiles)), progress.say
    )
    pictures = read_first(arguments.data, arguments.split, size, progress.skip, arguments.limit, eight_bits=True)
    progress.expect(len(pictures.places) + progress.bad_count)
    features = feature_caches(networks, out / PARTIAL)
    evaluator = Evaluator(pictures.images, networks, arguments.batch_size, device, features)

    ours = [peer for name, model in models for peer in at_rates(name, model, search.targets, size)]
    linear: list[FlowMoPeer] = []
    if TRANSFORM in arguments.codecs:
        models.append((TRANSFORM, transform_code(arguments, search.targets, size, progress.say)))
        linear = at_rates(*models[-1], search.targets, size)
    named: list[Peer] = [*ours, *linear, *peers, *(ThumbnailPeer(target) for target in search.targets)]
    seeds = [arguments.seed + place for place in pictures.places]
    methods = [peer_method(peer, size, seeds) for peer in named]
    for peer in ours if arguments.controls else ():
        methods += control_methods(peer, pictures.images, seeds)
    store = ResultStore(out / STORE)
    distance = nearest(networks.lpips["alex"], device)
    methods += _code(arguments, codecs, pictures, search, distance, store, progress)

    def finished(row: Row) -> None:
        progress.say(in_words(row))
        store.add(["seconds", started], time.time() - started)

    rows = compare(evaluator, methods, store, finished, linear)
    code = progress.finish()
    seconds = sum(value for key, value in store.entries.items() if key.startswith('["seconds"'))
    data, command = common.data_name(arguments.data), arguments.command_line
    done = Comparison(
        rows, models, codecs, search, networks, pictures, data, progress.bad, seconds, arguments.seed, command, device
    )
    files = write_comparison(out, done)
    for cache in features.values():
        cache.remove()
    if arguments.json:
        result = {"result": str(out / RESULT), "rows": [asdict(row) for row in rows], "bad": progress.bad}
        common.print_json(result)
    else:
        common.print_table(*table(rows), names=2)
        print("", *code_costs(rows), sep="\n")
        print(f"\n{NOTES}\n{COMPARABILITY}\n\n{', '.join(files)} are in {out}")
    return code


def _code(
    arguments: argparse.Namespace,
    codecs: Sequence[Codec],
    pictures: Images,
    wanted: Search,
    distance: Distance,
    store: ResultStore,
    progress: common.Progress,
) -> list[Method]:
    """All pictures through all codecs; says how far it is after each tenth."""
    total, done = len(codecs) * len(pictures.images), 0
    bar = common.Progress(total, "pictures coded")

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        bar.advance()
        if bar.bar is None and total >= 100 and done % (total // 10) == 0:
            progress.say(f"coded {done} of {total}: {len(pictures.images)} pictures by {len(codecs)} codecs")

    try:
        found = code_all(pictures.images, codecs, wanted, distance, store, advance, arguments.workers)
    finally:
        bar.finish()
    return [method for codec in codecs for method in codec_methods(codec, found[codec.name], wanted)]
