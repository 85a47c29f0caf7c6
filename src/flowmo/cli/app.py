"""``flowmo app``: opens a page in the browser where a photograph becomes a few hundred bytes and a picture again,
and where classes are drawn. It runs on this machine alone unless --share or --host says otherwise."""

from __future__ import annotations

import argparse
import os

import torch

from ..errors import ConfigError, WeightsError
from ..generation import PACKAGED_GENERATOR, Generator, load_generator
from ..integrations.app import App
from ..weights.load import PACKAGED
from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        nargs="+",
        default=[PACKAGED],
        metavar="MODEL",
        help=f"{common.MODEL_HELP}; several are rates to choose from (default: {PACKAGED})",
    )
    parser.add_argument(
        "--generator", metavar="FILE", help="generator of classes (default: the packaged one, beside its tokenizer)"
    )
    common.add_device_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=common.positive, metavar="N", help="port (default: the first free from 7860)")
    parser.add_argument("--share", action="store_true", help="a public address by gradio's servers, for 72 hours")


def run(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        from ..integrations import gradio
    except ImportError as error:
        raise ConfigError(f"the app needs gradio: pip install 'flowmo[app]' ({error})") from None
    device = common.find_device(arguments.device)
    models = [common.load_named(arguments, name, device=device) for name in arguments.model]
    app = App(models, _generator(arguments, [f"{model.fingerprint():08x}" for model in models], device))
    try:
        gradio.launch(app, arguments.host, arguments.port, arguments.share)
    except OSError as error:
        raise ConfigError(f"the page cannot be served: {error}; choose another --port") from None
    return 0


def _generator(arguments: argparse.Namespace, fingerprints: list[str], device: torch.device) -> Generator | None:
    """The one given, or the packaged one where its tokenizer is among the models."""
    if arguments.generator:
        return load_generator(arguments.generator, device)
    try:
        packaged = load_generator(PACKAGED_GENERATOR, device)
    except WeightsError:
        return None
    return packaged if packaged.config.tokens.fingerprint in fingerprints else None
