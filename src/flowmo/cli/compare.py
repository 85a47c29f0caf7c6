"""``flowmo compare``: models, image codecs and tokenizers of others at equal bytes, on the same pictures. Codecs are
given numbers of bytes and stand there at their best: of several scales and qualities the one nearest to the picture by
LPIPS (Alex). Writes comparison.json, table.md, a plot a measure, and the paper's Figure 1. A killed command goes on
where it was when it is given again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict

from ..comparison.adapters import Peer, at_rates, open_peer
from ..comparison.codecs import CODECS, COUNTED, Codec, Distance, get_codec
from ..comparison.coded import Search, code_all
from ..comparison.compare import Method, Row, all_methods, codec_methods, compare
from ..comparison.inputs import DEFAULT, METRICS, byte_targets, common_size, comparison_networks, nearest
from ..comparison.peers.adapter import list_peers, published_peer
from ..comparison.published import COMPARABILITY
from ..comparison.report import RESULT, STORE, Comparison, in_words, write_comparison
from ..comparison.table import NOTES, table
from ..data import Images, read_first
from ..devices import usable_device
from ..errors import ConfigError
from ..evaluation.evaluator import Evaluator
from ..evaluation.feature_cache import feature_caches
from ..evaluation.result_store import ResultStore
from ..evaluation.results import numbered, short_name
from ..evaluation.session import PARTIAL, hold
from ..experiments.transform_code import NAME as TRANSFORM
from ..experiments.transform_code import check_closed_form, transform_code
from ..files import check_targets
from ..metrics.networks import WeightFiles
from ..tokenizer import FlowMo
from ..viewing.plots import need_matplotlib
from . import common, models
from .fields import add_flag, fields_of
from .printing import Progress, print_json, print_table
from .values import positive, seed, size

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
    what = f"image codecs to compare with: {', '.join(CODECS)}; or {TRANSFORM}, the best linear code, fitted on the "
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
    add_flag(parser, "--metrics", METRICS, what, list(DEFAULT), nargs="*", metavar="NAME")
    add_flag(parser, "--workers", positive, "threads that code (default: one a core)")
    common.add_output_arguments(parser, OUT, force="overwrite a finished comparison in that folder")
    common.add_run_arguments(parser)
    common.add_weights_arguments(parser, *FILES)


def run(arguments: argparse.Namespace) -> int:
    if arguments.peers == ["list"]:
        header, rows = ["name", "tokenizer", "file", "published at huggingface.co"], list_peers()
        if arguments.json:
            print_json([{"name": n, "title": t, "files": f.split(" + "), "source": s} for n, t, f, s in rows])
        else:
            print_table(header, rows)
        return 0
    if arguments.data is None:
        raise ConfigError("say which pictures to compare on: flowmo compare DATA")
    check_targets([arguments.out / RESULT], force=arguments.force)
    need_matplotlib()
    with hold(arguments.out):
        return _compare(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    a, started, out = arguments, time.time(), arguments.out
    device = usable_device(a.device)
    codecs = [get_codec(name) for name in dict.fromkeys(a.codecs) if name != TRANSFORM]
    loaded = models.load_models(a, a.models, tokens=True)
    ours = list(zip(numbered([short_name(name) for name in a.models]), loaded, strict=True))
    peers: list[Peer] = [published_peer(spec, device) or open_peer(spec, a.trust) for spec in a.peers]
    configs = [model.config for model in loaded]
    size = common_size(configs, a.size)
    for config in dict.fromkeys(configs):
        models.tell_other_size(size, config)
    targets = byte_targets(configs, size, a.bytes)
    if not targets and a.codecs:
        raise ConfigError("there is no model to take numbers of bytes from, so say them: --bytes")
    search = Search(targets, COUNTED if a.counted == "both" else (a.counted,))
    progress = Progress(0)
    networks = comparison_networks(a.metrics, size, device, WeightFiles(**fields_of(a, WeightFiles)), progress.say)
    pictures = read_first(a.data, a.split, size, progress.skip, a.limit, eight_bits=True)
    progress.expect(len(pictures.places) + progress.bad_count)
    features = feature_caches(networks, out / PARTIAL)
    evaluator = Evaluator(pictures.images, networks, a.batch_size, device, features)

    linear = [(TRANSFORM, _transform_code(a, targets, size, progress))] if TRANSFORM in a.codecs else []
    peers = [*(peer for code in linear for peer in at_rates(*code, targets, size)), *peers]
    seeds = [a.seed + place for place in pictures.places]
    methods = all_methods(ours, peers, targets, pictures.images, seeds, a.controls)
    store = ResultStore(out / STORE)
    distance = nearest(networks.lpips["alex"], device)
    methods += _code(a, codecs, pictures, search, distance, store, progress)

    def finished(row: Row) -> None:
        progress.say(in_words(row))
        store.add(["seconds", started], time.time() - started)

    rows = compare(evaluator, methods, store, finished)
    code = progress.finish()
    seconds = sum(value for key, value in store.entries.items() if key.startswith('["seconds"'))
    done = Comparison(
        rows,
        [*ours, *linear],
        codecs,
        search,
        networks,
        pictures,
        common.data_name(a.data),
        progress.bad,
        seconds,
        a.seed,
        a.command_line,
        device,
    )
    files = write_comparison(out, done)
    for cache in features.values():
        cache.remove()
    if a.json:
        print_json({"result": str(out / RESULT), "rows": [asdict(row) for row in rows], "bad": progress.bad})
    else:
        print_table(*table(rows))
        print(f"\n{NOTES}\n{COMPARABILITY}\n\n{', '.join(files)} are in {out}")
    return code


def _transform_code(
    arguments: argparse.Namespace, targets: Sequence[int], size: tuple[int, int], progress: Progress
) -> FlowMo:
    """Return the closed-form code: of the file that ``--transform`` names, else fitted on the data."""
    if arguments.transform:
        return check_closed_form(models.load_named(arguments, arguments.transform), arguments.transform)
    return transform_code(arguments.data, arguments.out / f"{TRANSFORM}.safetensors", targets, size, progress.say)


def _code(
    arguments: argparse.Namespace,
    codecs: Sequence[Codec],
    pictures: Images,
    search: Search,
    distance: Distance,
    store: ResultStore,
    progress: Progress,
) -> list[Method]:
    """Return all pictures through all codecs; says how far it is after each tenth."""
    total, done = len(codecs) * len(pictures.images), 0
    bar = Progress(total, "pictures coded")

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        bar.advance()
        if bar.bar is None and total >= 100 and done % (total // 10) == 0:
            progress.say(f"coded {done} of {total}: {len(pictures.images)} pictures by {len(codecs)} codecs")

    try:
        found = code_all(pictures.images, codecs, search, distance, store, advance, arguments.workers)
    finally:
        bar.finish()
    return [method for codec in codecs for method in codec_methods(codec, found[codec.name], search)]
