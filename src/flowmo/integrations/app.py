"""The app without its page: it codes photographs, and draws images of classes, when a button is pressed."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..codec import TokenFile, check_decodable, encode_file, write_file
from ..data import fit_image, to_image, to_tensor
from ..errors import ConfigError, ImageError, WeightsError
from ..generation import Generator, check_image_size, generate, image_seed
from ..image_utils.decode import to_rgb
from ..metrics.pixels import psnr
from ..perceptual import LPIPS, load_lpips
from ..quantize.tokens import payload_size
from ..tokenizer import FlowMo

SHOWN = 512
"""Pixels of a side that small images are enlarged to, so that a page does not blur them."""


@dataclass(frozen=True)
class Coded:
    """One image that was coded and decoded, as the page shows it."""

    original: Image.Image  # cropped to the model's size and enlarged
    reconstruction: Image.Image  # of the model's size, enlarged
    payload_bytes: int  # of the tokens
    file_bytes: int  # with the header
    bits_per_pixel: float  # of the tokens
    psnr: float  # dB
    lpips: float | None  # None where its weights are not here, or the image is too small for it
    seconds: float  # of encoding and decoding
    file: Path  # the .flowmo file


@dataclass
class App:
    """The models of the app, and what its buttons do with them.

    Raises ConfigError without a model, or where the generator's tokenizer is none of the models; TokenFileError or
    ImageError where that cannot decode tokens of the number and size that the generator's file says.
    """

    models: Sequence[FlowMo]  # tokenizers of different rates, sorted here, lowest first
    generator: Generator | None = None  # of tokens of one of the models, or None
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="flowmo-app-")))
    """Holds the files for download; removed with the process's temporary files."""
    lpips: LPIPS | None = None  # set here: LPIPS (Alex), None where its weights are not here

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("the app needs a model")
        for model in self.models:
            model.require_tokens()
        self.models = sorted(self.models, key=lambda model: model.config.bits_per_pixel)
        self._fingerprints = [model.fingerprint() for model in self.models]
        if self.generator is not None:
            self._tokenizer = self._tokenizer_of(self.generator)
        try:
            self.lpips = load_lpips("alex").to(self.models[0].device)
        except WeightsError:
            self.lpips = None

    @property
    def rates(self) -> list[str]:
        """Return each model's rate in words, lowest first."""
        configs = [model.config for model in self.models]
        return [
            f"{payload_size(c.num_tokens, c.bits_per_token)} bytes, {c.bits_per_pixel:.3f} bits per pixel"
            for c in configs
        ]

    @property
    def classes(self) -> list[str]:
        """Return the names of the generator's classes, or their numbers; nothing without a generator."""
        if self.generator is None:
            return []
        return self.generator.classes or [str(i) for i in range(self.generator.config.num_classes)]

    def code(self, image: Image.Image | None, rate: int = 0, num_steps: int | None = None, seed: int = 0) -> Coded:
        """Return an image coded and decoded by the model of that rate, and write its .flowmo file.

        rate: the place of the model in ``models``.
        num_steps: of the sampler, by default the model's.
        Raises ImageError where there is no image.
        """
        if image is None:
            raise ImageError("drop a photograph first")
        model = self.models[rate]
        side = model.config.image_size
        fitted = fit_image(to_rgb(image), side, side)
        original = to_tensor(fitted)[None].to(model.device)
        start = time.perf_counter()
        tokens = model.tokenize(original)
        decoded = model.detokenize(tokens, num_steps=num_steps, seed=seed)
        if decoded.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        file = TokenFile(tokens, self._fingerprints[rate], "crop", (image.height, image.width))
        content = encode_file(file)
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:12]}.flowmo"
        write_file(path, file)
        return Coded(
            _enlarged(fitted),
            _enlarged(to_image(decoded[0])),
            len(tokens.to_bytes()[0]),
            len(content),
            tokens.bits_per_pixel,
            float(psnr(decoded, original)),
            self._distance(decoded, original),
            seconds,
            path,
        )

    def draw(self, label: int, count: int = 4, guidance: float = 3.0, seed: int = 0) -> list[Image.Image]:
        """Return ``count`` images of a class, from token seeds that the class and ``seed`` decide.

        Raises ConfigError where there is no generator or no such class.
        """
        if self.generator is None:
            raise ConfigError("there is no generator for this tokenizer; give one with --generator")
        settings = replace(self.generator.config.decoding, num_steps=12, guidance_scale=guidance)
        seeds = [image_seed(seed + i, label) for i in range(count)]
        drawn: list[Image.Image] = []
        for tokens in generate(self.generator, [label] * count, settings, seeds):
            drawn += [_enlarged(to_image(image), 256) for image in self._tokenizer.detokenize(tokens, seed=seed)]
        return drawn

    def _tokenizer_of(self, generator: Generator) -> FlowMo:
        for model, fingerprint in zip(self.models, self._fingerprints, strict=True):
            if f"{fingerprint:08x}" == generator.config.tokens.fingerprint:
                check_image_size(generator.config.tokens, model.config)
                check_decodable(generator.config.tokens.no_images(), model.config)
                return model
        raise ConfigError(
            f"the generator makes tokens of the tokenizer {generator.config.tokens.fingerprint}, which is no model here"
        )

    def _distance(self, ours: Tensor, theirs: Tensor) -> float | None:
        if self.lpips is None:
            return None
        try:
            with torch.no_grad():
                return float(self.lpips(ours, theirs))
        except ImageError:  # too small for it
            return None


def _enlarged(image: Image.Image, side: int = SHOWN) -> Image.Image:
    """Return an image enlarged by a whole factor, so that each pixel becomes a square."""
    factor = max(1, side // max(image.size))
    return (
        image if factor == 1 else image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    )
