"""Validation of a model in training: samples from pure noise, since the training loss says nothing about the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data import to_uint8
from ..files import replacing
from ..metrics.features import FeatureNetwork
from ..metrics.networks import Networks
from ..metrics.pixels import psnr, thumbnail
from ..metrics.table import mean
from ..tokenizer import FlowMo
from .evaluator import Evaluator
from .reconstruction import thumbnail_bits

TITLES = {"": "all steps", "_one_step": "one step"}
"""Of the rows of a contact sheet, by what the numbers' names end with."""


def make_validation(
    images: Tensor,
    folder: Path,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    pictures: int = 8,
    decode: Callable[[FlowMo, Tensor], Tensor] | None = None,
) -> Callable[[FlowMo, int], dict[str, float]]:
    """Return a function of (model, images seen) for the training loop.

    It reconstructs ``images`` (B 3 H W in [-1, 1]) with the model's own sampler and in one step from t = 1, writes a
    contact sheet (rows: original, thumbnail of the same bits, one step, sampler) to ``folder``, and returns PSNR in
    dB, LPIPS where a network is given, and PSNR with the codes shuffled between images. decode: images to images
    through their codes, in place of sampler and single step, for a model that learns no velocities (F5).
    """

    @torch.no_grad()
    def validate(model: FlowMo, images_seen: int) -> dict[str, float]:
        x = images.to(model.device)
        small = thumbnail(x, thumbnail_bits(model.config, (x.shape[2], x.shape[3])))
        decoded = {"": decode(model, x)} if decode else _sampled(model, x)
        rows = {"original": x, "thumbnail": small}
        rows |= {TITLES[name] if len(decoded) > 1 else "decoded": decoded[name] for name in reversed(decoded)}
        with replacing(folder / f"{images_seen:010d}.png") as part:
            labelled({title: row[:pictures] for title, row in rows.items()}).save(part, format="PNG")
        decoded["_thumbnail"] = small
        numbers = {f"psnr{name}": psnr(picture, x) for name, picture in decoded.items()}
        numbers["psnr_shuffled"] = psnr(decoded[""].roll(1, 0), x)
        if perceptual is not None:
            numbers |= {f"lpips{name}": perceptual(picture, x) for name, picture in decoded.items()}
        return {name: float(value.cpu().double().mean()) for name, value in numbers.items()}

    return validate


def make_sampler_validation(
    images: Tensor,
    folder: Path,
    distance: Callable[[Tensor, Tensor], Tensor] | None,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    inception: FeatureNetwork | None = None,
    batch_size: int = 16,
) -> Callable[[FlowMo, int], dict[str, float]]:
    """Return what :func:`make_validation` does, of more images and numbers, to see reward hacking in Stage 1B.

    They are always of the same images and noise, sampled by the model's own sampler and rounded to 8 bits as by the
    standard protocol.

    It returns ``psnr``, ``distance``, d_perc of the loss, and where their networks are given ``lpips``, ``rfid`` and
    ``kid``. The contact sheet and ``psnr_one_step`` are of the first images alone.
    """
    sheet = make_validation(images[:8], folder)
    distances = {name: network for name, network in (("distance", distance), ("alex", lpips)) if network is not None}
    features = {} if inception is None else {"inception": inception}
    networks = Networks(("psnr", *(("rfid", "kid") if features else ())), distances, features)
    evaluator = Evaluator(to_uint8(images).cpu(), networks, batch_size, images.device)

    @torch.no_grad()
    def validate(model: FlowMo, images_seen: int) -> dict[str, float]:
        numbers = {"psnr_one_step": sheet(model, images_seen)["psnr_one_step"]}
        starts = range(0, len(images), batch_size)
        reconstructions = [
            model.reconstruct(x, seed=list(range(start, start + len(x)))).to(images.device)
            for start, x in zip(starts, images.split(batch_size), strict=True)
        ]
        together = torch.cat(reconstructions)
        measured = evaluator.measure(lambda _, places: together[list(places)])
        found = evaluator.metrics(measured)
        numbers |= {name: found[name] for name in ("psnr", "rfid", "kid") if name in found}
        for name, column in (("distance", "lpips_distance"), ("lpips", "lpips_alex")):
            if column in measured.columns:
                numbers[name] = mean(measured.columns[column])
        return numbers

    return validate


def labelled(rows: dict[str, Tensor]) -> Image.Image:
    """Return a sheet of images, each row with its title at the left. rows: B 3 H W in [-1, 1], all of one shape."""
    font = ImageFont.load_default(12)
    margin = 8 + int(max(font.getlength(title) for title in rows))
    pixels = torch.cat([torch.cat(list(row), 2) for row in rows.values()], 1)
    images = Image.fromarray(to_uint8(pixels[None])[0].permute(1, 2, 0).cpu().numpy())
    sheet = Image.new("RGB", (margin + images.width, images.height), "white")
    sheet.paste(images, (margin, 0))
    height = images.height // len(rows)
    for r, title in enumerate(rows):
        ImageDraw.Draw(sheet).text((4, r * height + height // 2), title, "black", font, anchor="lm")
    return sheet


def _sampled(model: FlowMo, images: Tensor) -> dict[str, Tensor]:
    """By the sampler, and in one step; by what their numbers' names end with."""
    codes, size, seeds = model.codes(images), (images.shape[2], images.shape[3]), list(range(len(images)))
    return {
        "": model.decode_codes(codes, size, seed=seeds),
        "_one_step": model.decode_codes(codes, size, num_steps=1, guidance_scale=1.0, seed=seeds),
    }
