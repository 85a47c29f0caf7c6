"""A generator and the tokenizer whose tokens it makes write images of classes to disk (Section 3.5, Figure 6)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ..config import to_dict
from ..data import to_image
from ..errors import TokenFileError
from ..evaluation.results import weights_checksum
from ..files import replacing
from ..generation import (
    NO_CLASS,
    DecodeSettings,
    Generator,
    check_tokenizer,
    first_name,
    generate,
    picture_seed,
    to_tokens,
)
from ..quantize.tokens import Tokens
from ..tokenizer import FlowMo
from ..viewing import contact_sheet, write_png

IN_A_ROW = 8


class ImageGenerator(NamedTuple):
    """A generator and the tokenizer whose tokens it makes."""

    name: str  # for the names of files
    generator: Generator  # class to tokens
    tokenizer: FlowMo  # tokens to images


@dataclass(frozen=True)
class Order:
    """What one source is to sample, and where it goes."""

    labels: list[int]  # the classes
    count: int  # pictures of each label
    seed: int  # the number of the first picture of each label
    settings: DecodeSettings  # how tokens are generated
    batch_size: int  # pictures at a time
    decoder: dict[str, Any]  # settings of ``FlowMo.detokenize``
    folder: Path | None  # where single pictures go; None for nowhere
    npz: Path | None  # the file of all pictures; None for none
    strip: Path | None  # the picture of moments; None for none
    classes: Sequence[str] = ()  # names, by label, for the names of files
    whole_batches: bool = False  # see ``generation.generate``

    @cached_property
    def each(self) -> list[int]:
        """Return the label of every picture."""
        return [label for label in self.labels for _ in range(self.count)]

    @cached_property
    def seeds(self) -> list[int]:
        """Return the seed of every picture."""
        return [picture_seed(self.seed + place % self.count, label) for place, label in enumerate(self.each)]

    def picture(self, place: int) -> Path | None:
        """Return where a picture is written; None where there is no folder."""
        label, number = self.each[place], self.seed + place % self.count
        of_class = "any" if label == NO_CLASS else f"{label:04d}{self.name_in_files(label)}"
        return self.folder and self.folder / f"{of_class}-{number:04d}.png"

    def name_in_files(self, label: int) -> str:
        """Return a hyphen and the name of a class; "" where it has none.

        It has letters, digits and hyphens alone, at most 40.
        """
        words = re.findall(r"[^\W_]+", first_name(self.classes[label]).lower()) if self.classes else []
        return "".join(f"-{word}" for word in words)[:40].rstrip("-")

    @property
    def targets(self) -> list[Path]:
        """Return all files that are written."""
        pictures = [self.picture(place) for place in range(len(self.each))]
        return [path for path in (*pictures, self.npz, self.strip) if path]


def image_generators(
    files: Sequence[str], generators: Sequence[Generator], tokenizers: Sequence[FlowMo]
) -> list[ImageGenerator]:
    """Return each generator with the tokenizer of its fingerprint. Raises TokenFileError where none has it."""
    prints = [f"{tokenizer.fingerprint():08x}" for tokenizer in tokenizers]
    paths = [Path(file).resolve() for file in files]
    names = [path.parent.name if path.name == "model.safetensors" else path.stem for path in paths]
    if len(set(names)) < len(names):
        names = ["a", "b"]
    found = []
    for name, generator in zip(names, generators, strict=True):
        layout = generator.config.tokens
        if len(prints) == 1:
            check_tokenizer(layout, tokenizers[0].fingerprint())
        elif layout.fingerprint not in prints:
            raise TokenFileError(
                f"{name} was trained on tokens of the tokenizer {layout.fingerprint}, which none of those given is "
                f"({', '.join(prints)})"
            )
        found.append(ImageGenerator(name, generator, tokenizers[prints.index(layout.fingerprint)]))
    return found


def write_samples(source: ImageGenerator, order: Order, on_done: Callable[[int], None]) -> dict[str, list[Image.Image]]:
    """Sample and write every picture, and return the first ones of each class by its title, for a grid.

    With an ``.npz`` alone, a call that was killed goes on where it was.
    """
    rows: dict[str, list[Image.Image]] = {title(source.generator, label): [] for label in order.labels}
    each, seeds = order.each, order.seeds
    array = Unfinished(source, order) if order.npz is not None else None
    place = array.done if array is not None else 0
    on_done(place)
    for tokens in generate(
        source.generator, each[place:], order.settings, seeds[place:], order.batch_size, None, order.whole_batches
    ):
        for image in _images(source, order, tokens, seeds[place : place + len(tokens)]):
            picture, path = to_image(image), order.picture(place)
            if array is not None:
                array.pixels[place] = np.asarray(picture)
            if path is not None:
                write_png(path, picture)
            row = rows[title(source.generator, each[place])]
            if len(row) < IN_A_ROW:
                row.append(picture)
            place += 1
        if array is not None:
            array.keep(place)
        on_done(len(tokens))
    if order.npz is not None and array is not None:
        write_npz(order.npz, array.pixels, each)
        array.remove()
    return rows


class Unfinished:
    """The pictures of an ``.npz`` that is being made, in a file beside it.

    So 50,000 of them need no memory, and a kill loses one batch.
    pixels: uint8 N H W 3.
    done: how many of them are there, from the same weights and settings.
    """

    def __init__(self, source: ImageGenerator, order: Order) -> None:
        assert order.npz is not None
        self.file = order.npz.with_name(f".{order.npz.name}.npy")
        self.note = order.npz.with_name(f".{order.npz.name}.json")
        self.job = {
            "generator": weights_checksum(source.generator),
            "tokenizer": weights_checksum(source.tokenizer),
            "sampler": to_dict(source.tokenizer.config.sampler),
            "decoder": order.decoder,
            "settings": to_dict(order.settings),
            "pictures": [order.labels, order.count, order.seed],
        }
        shape = (len(order.each), *source.generator.config.tokens.image_size, 3)
        self.done = 0 if order.folder else self._found(shape)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        mode = "r+" if self.done else "w+"
        if not self.done:  # what an earlier note counts is about to be overwritten
            self.note.unlink(missing_ok=True)
        self.pixels = np.lib.format.open_memmap(self.file, mode, np.uint8, shape)

    def _found(self, shape: tuple[int, ...]) -> int:
        try:
            note = json.loads(self.note.read_text())
            same = note["job"] == json.loads(json.dumps(self.job))
            return int(note["done"]) if same and np.load(self.file, mmap_mode="r").shape == shape else 0
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return 0

    def keep(self, done: int) -> None:
        """Write the pictures, and note that so many are there."""
        self.pixels.flush()
        with replacing(self.note) as part:
            part.write_text(json.dumps({"job": self.job, "done": done}))

    def remove(self) -> None:
        """Delete the file and its note."""
        self.note.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def write_npz(path: Path, pixels: np.ndarray, labels: Sequence[int]) -> None:
    """Write samples as guided diffusion's evaluator reads them, ``arr_0`` uint8 N H W 3 and ``arr_1``, their labels."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, arr_0=pixels, arr_1=np.array(labels))


def steps_strip(source: ImageGenerator, order: Order, moments: int) -> Image.Image:
    """Return a sheet of that many moments in the unmasking of the first picture of some classes.

    A moment is decoded from the tokens that are fixed and the guesses for the others.
    """
    labels = order.labels[:IN_A_ROW]
    seeds = [picture_seed(order.seed, label) for label in labels]
    config, drawn = source.generator.config, []

    def keep(tokens: Tensor, mask: Tensor) -> None:
        drawn.append(tokens.cpu())

    for _ in generate(source.generator, labels, order.settings, seeds, len(labels), keep):
        pass
    last = len(drawn) - 1
    places = sorted({round(i * last / max(1, moments - 1)) for i in range(moments)}) if moments > 1 else [last]
    columns = [
        [to_image(image) for image in _images(source, order, to_tokens(drawn[place], config), seeds)]
        for place in places
    ]
    rows = {title(source.generator, label): [column[r] for column in columns] for r, label in enumerate(labels)}
    return contact_sheet(rows, columns=len(places))


def title(generator: Generator, label: int) -> str:
    """Return a class in words."""
    if label == NO_CLASS:
        return "any class"
    return f"{label} {first_name(generator.classes[label])}" if generator.classes else str(label)


def _images(source: ImageGenerator, order: Order, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
    return source.tokenizer.detokenize(tokens, seed=list(seeds), **order.decoder).cpu()
