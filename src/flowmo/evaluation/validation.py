"""Validation samples a model in training from pure noise, since the training loss says nothing about the code.

Each process measures its share of the images; the numbers are those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ..data import to_uint8
from ..errors import WeightsError
from ..files import replacing
from ..metrics.features import FeatureNetwork, load_inception
from ..metrics.networks import Networks
from ..metrics.pixels import psnr, thumbnail
from ..metrics.table import Measurements, column, mean
from ..perceptual import load_lpips
from ..tokenizer import FlowMo
from .evaluate import Alone, Processes
from .evaluator import Evaluator
from .protocols import STANDARD
from .reconstruction import thumbnail_bits

Network = TypeVar("Network", bound=nn.Module)
ALONE = Alone()
TITLES = {"": "all steps", "_one_step": "one step"}
"""Titles of the rows of a contact sheet, by what the numbers' names end with."""


def make_validation(
    images: Tensor,
    folder: Path,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    columns: int = 8,
    decode: Callable[[FlowMo, Tensor], Tensor] | None = None,
    processes: Processes = ALONE,
) -> Callable[[FlowMo, int], dict[str, float]]:
    """Return a function of (model, images seen) for the training loop.

    It reconstructs ``images`` (B 3 H W in [-1, 1]) with the model's own sampler and in one step from t = 1.
    It writes a contact sheet (rows: original, thumbnail of the same bits, one step, sampler) to ``folder``.
    It returns PSNR in dB, LPIPS where a network is given, and PSNR with the codes shuffled between images. They are of
    the sampled values, not rounded to 8 bits as ``Evaluator`` rounds them, so that numbers are those of earlier logs.
    columns: how many columns the sheet has.
    decode: images to images through their codes, in place of sampler and single step, for a model that learns no
    velocities (F5).
    processes: they share the images, each calls it with the same model, and the first writes the sheet.
    """

    @torch.no_grad()
    def validate(model: FlowMo, images_seen: int) -> dict[str, float]:
        places = share(len(images), processes)
        x, decoded, numbers = images[places].to(model.device), {}, {}
        if len(x):
            decoded = {"": decode(model, x)} if decode else _sampled(model, x, list(range(len(images)))[places])
            small = thumbnail(x, thumbnail_bits(model, (x.shape[2], x.shape[3])))
            decoded["_thumbnail"] = small
            if perceptual is not None:
                numbers = {f"lpips{name}": perceptual(y, x).cpu() for name, y in decoded.items()}
        gathered = processes.gather(({name: image.cpu() for name, image in decoded.items()}, numbers))
        decoded, numbers = (joined([each[k] for each in gathered]) for k in range(2))
        rows = {"original": images.cpu(), "thumbnail": decoded["_thumbnail"]}
        shown = [name for name in reversed(decoded) if name in TITLES]
        rows |= {TITLES[name] if len(shown) > 1 else "decoded": decoded[name] for name in shown}
        if processes.rank == 0:
            with replacing(folder / f"{images_seen:010d}.png") as part:
                labelled({title: row[:columns] for title, row in rows.items()}).save(part, format="PNG")
        numbers |= {f"psnr{name}": psnr(y, images.cpu()) for name, y in decoded.items()}
        numbers["psnr_shuffled"] = psnr(decoded[""].roll(1, 0), images.cpu())
        return {name: float(value.double().mean()) for name, value in numbers.items()}

    return validate


def make_sampler_validation(
    images: Tensor,
    folder: Path,
    distance: Callable[[Tensor, Tensor], Tensor] | None,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    inception: FeatureNetwork | None = None,
    batch_size: int = 16,
    processes: Processes = ALONE,
) -> Callable[[FlowMo, int], dict[str, float]]:
    """Return a function like :func:`make_validation`'s of more images and numbers, to see reward hacking in Stage 1B.

    The numbers are always of the same images and noise, sampled by the model's own sampler and rounded to 8 bits as by
    the standard protocol.
    They are ``psnr``, and where their networks are given ``distance`` (d_perc of the loss), ``lpips``, ``rfid`` and
    ``kid``.
    The contact sheet and ``psnr_one_step`` are of the first images alone.
    processes: as there.
    """
    sheet = make_validation(images[:8], folder, processes=processes)
    distances = {name: network for name, network in (("distance", distance), ("alex", lpips)) if network is not None}
    features = {} if inception is None else {"inception": inception}
    networks = Networks(("psnr", *(("rfid", "kid") if features else ())), distances, features)
    places = share(len(images), processes)
    own = images[places]
    evaluator = Evaluator(to_uint8(own).cpu(), networks, batch_size, images.device, of=len(images))

    @torch.no_grad()
    def validate(model: FlowMo, images_seen: int) -> dict[str, float]:
        numbers = {"psnr_one_step": sheet(model, images_seen)["psnr_one_step"]}

        def reconstruct(_: Tensor, rows: Sequence[int]) -> Tensor:
            seeds = [places.start + row for row in rows]
            return model.reconstruct(own[rows[0] : rows[-1] + 1], seed=seeds).to(images.device)

        taken = evaluator.measure(reconstruct) if len(own) else Measurements({}, {})
        gathered = processes.gather((taken.columns, taken.originals))
        columns, originals = (joined([each[k] for each in gathered]) for k in range(2))
        measured = Measurements(columns, originals)
        found = evaluator.metrics(measured)
        numbers |= {name: found[name] for name in ("psnr", "rfid", "kid") if name in found}
        for name, of in (("distance", "lpips_distance"), ("lpips", "lpips_alex")):
            if of in measured.columns:
                numbers[name] = mean(measured.columns[of])
        return numbers

    return validate


def share(count: int, processes: Processes) -> slice:
    """Return the places that this process takes of ``count``, all in a row."""
    return slice(count * processes.rank // processes.size, count * (processes.rank + 1) // processes.size)


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return arrays or tensors by name, the rows of all parts one after the other.

    A part that lacks a name has none of its rows.
    """
    found: dict[str, list[Any]] = {}
    for part in parts:
        for name, rows in part.items():
            found.setdefault(name, []).append(rows)
    return {
        name: torch.cat(rows) if isinstance(rows[0], Tensor) else np.concatenate(rows) for name, rows in found.items()
    }


def load_sampler_validation(
    images: Tensor,
    folder: Path,
    distance: Callable[[Tensor, Tensor], Tensor],
    lpips: Path | None = None,
    inception: Path | None = None,
    rfid: bool = True,
    say: Callable[[str], None] = lambda line: None,
    processes: Processes = ALONE,
) -> Callable[[FlowMo, int], dict[str, float]]:
    """Return :func:`make_sampler_validation` with the networks that measure loaded to the images' device.

    lpips, inception: files of weights; None for those that are installed.
    rfid: False leaves it out.
    say: called with a note on each network that is not installed, whose numbers are left out.
    processes: as there.
    Raises WeightsError for a file that was given and cannot be used.
    """

    def there(load: Callable[[], Network], file: Path | None, what: str) -> Network | None:
        try:
            return load().to(images.device)
        except WeightsError as error:
            if file is not None:
                raise
            say(f"note: validation leaves {what} out: {error}")
            return None

    alex = there(lambda: load_lpips("alex", lpips), lpips, "LPIPS")
    features = None
    if rfid:
        name = column("rfid").label
        features = there(lambda: load_inception(inception, None, STANDARD.inception), inception, name)
    return make_sampler_validation(images, folder, distance, alex, features, processes=processes)


def labelled(rows: dict[str, Tensor]) -> Image.Image:
    """Return a sheet of images, each row with its title at the left.

    rows: images B 3 H W in [-1, 1] by title, all of one shape.
    """
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


def _sampled(model: FlowMo, images: Tensor, seeds: list[int]) -> dict[str, Tensor]:
    """Return images decoded by the sampler and in one step, by what their numbers' names end with."""
    codes, size = model.codes(images), (images.shape[2], images.shape[3])
    return {
        "": model.decode_codes(codes, size, seed=seeds),
        "_one_step": model.decode_codes(codes, size, num_steps=1, guidance_scale=1.0, seed=seeds),
    }
