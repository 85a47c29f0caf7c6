"""``flowmo app``: serves a page for the browser that codes photographs and draws pictures of classes.

A photograph becomes a few hundred bytes and a picture again. It runs on this machine alone unless --share or --host
says otherwise.
"""

from __future__ import annotations

import argparse

from ..devices import usable_device
from ..generation import load_generator, packaged_generator_of
from ..integrations.app import App
from ..integrations.serving import need_gradio, serve
from ..weights.load import packaged_names
from .arguments.common import MODEL_HELP, add_device_argument
from .arguments.fields import add_flag
from .arguments.models import load_options
from .arguments.values import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = f"{MODEL_HELP}; several are rates to choose from"
    add_flag(parser, "--model", str, what, packaged_names(), metavar="MODEL")
    what = "generator of classes (default: the packaged one, beside its tokenizer)"
    parser.add_argument("--generator", metavar="FILE", help=what)
    add_device_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add_flag(parser, "--port", positive, "port (default: the first free from 7860)")
    parser.add_argument("--share", action="store_true", help="a public address by gradio's servers, for 72 hours")


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    need_gradio()
    device = usable_device(a.device)
    models = load_options(a).load_ready(a.model)
    fingerprints = [model.fingerprint() for model in models]
    generator = load_generator(a.generator, device) if a.generator else packaged_generator_of(fingerprints, device)
    serve(App(models, generator), a.host, a.port, a.share)
    return 0
