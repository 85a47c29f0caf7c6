"""A generator and the tokenizer whose tokens it makes write images of classes to disk (Section 3.5, Figure 6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image
from torch import Tensor

from ..codec import check_decodable
from ..comparison.peers.tokenizer import PeerTokenizer
from ..data import to_image
from ..errors import ConfigError, FlowMoError, TokenFileError
from ..evaluation.measurable import Measurable
from ..files import real_path
from ..generation import (
    NO_CLASS,
    DecodeSettings,
    Generator,
    TokenLayout,
    check_image_size,
    check_tokenizer,
    find_class,
    first_name,
    generate,
    image_seed,
    to_tokens,
)
from ..image_utils.scale import brought_to
from ..quantize.tokens import Tokens
from ..tokenizer import FlowMo
from ..viewing import contact_sheet, write_png

IN_A_ROW = 8


class Detokenizer(Measurable, Protocol):
    """A tokenizer that decodes a generator's tokens: FlowMo, and other people's (Table 2)."""

    def detokenize(self, tokens: Tokens, *, seed: int | Sequence[int] = 0, **sampler: Any) -> Tensor: ...


class ImageGenerator(NamedTuple):
    """A generator and the tokenizer whose tokens it makes."""

    name: str  # for the names of files
    generator: Generator  # class to tokens
    tokenizer: Detokenizer  # tokens to images


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
    size: int | None = None  # side in pixels that the pictures are brought to; None for that of the tokens

    @cached_property
    def each(self) -> list[int]:
        """Return the label of every picture."""
        return [label for label in self.labels for _ in range(self.count)]

    @cached_property
    def seeds(self) -> list[int]:
        """Return the seed of every picture."""
        return [image_seed(self.seed + place % self.count, label) for place, label in enumerate(self.each)]

    def image(self, place: int) -> Path | None:
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
        images = [self.image(place) for place in range(len(self.each))]
        return [path for path in (*images, self.npz, self.strip) if path]


def image_generators(
    files: Sequence[str], generators: Sequence[Generator], tokenizers: Sequence[Detokenizer]
) -> list[ImageGenerator]:
    """Return each generator with the tokenizer of its fingerprint.

    Raises TokenFileError where none has it, or where that cannot decode tokens of the number and size of its header.
    """
    prints = [f"{tokenizer.fingerprint():08x}" for tokenizer in tokenizers]
    paths = [real_path(file) for file in files]
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
                f"{name} was trained on tokens of the tokenizer {layout.title}, which none of those given is "
                f"({', '.join(prints)})"
            )
        found.append(ImageGenerator(name, generator, tokenizers[prints.index(layout.fingerprint)]))
        check_layout(layout, found[-1].tokenizer)
    return found


def check_layout(layout: TokenLayout, tokenizer: Detokenizer) -> None:
    """Raise TokenFileError unless a tokenizer decodes such tokens: by fingerprint, number, bits and size of images."""
    check_tokenizer(layout, tokenizer.fingerprint())
    try:
        if isinstance(tokenizer, FlowMo):
            check_image_size(layout, tokenizer.config)
            check_decodable(layout.no_images(), tokenizer.config)
        elif isinstance(tokenizer, PeerTokenizer):
            tokenizer.check_decodable(layout.no_images())
    except FlowMoError as error:
        raise TokenFileError(f"what the generator says of its tokens does not fit their tokenizer: {error}") from None


def chosen_labels(generators: Sequence[Generator], classes: Sequence[str], any_class: bool = False) -> list[int]:
    """Return the labels of classes named by number, name or WordNet id, each once; of none, those of all classes.

    any_class: of no class in particular.
    Raises ConfigError for generators of other classes than the first, and for a class that there is not.
    """
    first = generators[0]
    if any(g.classes != first.classes or g.config.num_classes != first.config.num_classes for g in generators):
        raise ConfigError("the two generators have other classes, so there is nothing to compare")
    if any_class and classes:
        raise ConfigError("give either --class or --any-class")
    if any_class:
        return [NO_CLASS]
    found = [find_class(text, first.classes, first.config.num_classes) for text in classes]
    return list(dict.fromkeys(found)) or list(range(first.config.num_classes))


class SampledImages:
    """The single pictures of an order as they come.

    Each is written where the order has a folder, and the first of each class are kept for a grid. rows: title of a
    class -> pictures.
    """

    def __init__(self, source: ImageGenerator, order: Order) -> None:
        self.order = order
        self.titles = {label: title(source.generator, label) for label in order.labels}
        self.rows: dict[str, list[Image.Image]] = {text: [] for text in self.titles.values()}

    def add(self, place: int, image: Image.Image) -> None:
        """Take the picture of a place in ``Order.each``."""
        path, row = self.order.image(place), self.rows[self.titles[self.order.each[place]]]
        if path is not None:
            write_png(path, image)
        if len(row) < IN_A_ROW:
            row.append(image)


def sample(source: ImageGenerator, order: Order, places: range) -> Iterator[Tensor]:
    """Give the images of these places in ``Order.each``, n 3 H W in [-1, 1], a batch at a time."""
    labels, seeds = (values[places.start : places.stop] for values in (order.each, order.seeds))
    done = 0
    for tokens in generate(
        source.generator, labels, order.settings, seeds, order.batch_size, None, order.whole_batches
    ):
        yield _images(source, order, tokens, seeds[done : done + len(tokens)])
        done += len(tokens)


def write_samples(source: ImageGenerator, order: Order, on_done: Callable[[int], None]) -> dict[str, list[Image.Image]]:
    """Sample and write every picture of an order without an ``.npz``; return the first ones of each class, for a grid.

    An order with one is for ``many_images.write_many``.
    """
    kept, place = SampledImages(source, order), 0
    for images in sample(source, order, range(len(order.each))):
        for image in images:
            kept.add(place, to_image(image))
            place += 1
        on_done(len(images))
    return kept.rows


def steps_strip(source: ImageGenerator, order: Order, moments: int) -> Image.Image:
    """Return a sheet of that many moments in the unmasking of the first picture of some classes.

    A moment is decoded from the tokens that are fixed and the guesses for the others.
    """
    labels = order.labels[:IN_A_ROW]
    seeds = [image_seed(order.seed, label) for label in labels]
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
    images = source.tokenizer.detokenize(tokens, seed=list(seeds), **order.decoder).cpu()
    return brought_to(images, order.size)
