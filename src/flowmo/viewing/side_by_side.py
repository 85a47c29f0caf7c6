"""Originals are put beside reconstructions, one pair as a picture, many as a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..files import replacing

GAP, CAPTION = 4, 18
SMALLEST = 128  # pixels a picture has at least on a sheet, so that those of small models can be seen
COLUMNS = 8
BACKGROUND, TEXT = (255, 255, 255), (40, 40, 40)


def enlarge(image: Image.Image, smallest: int = SMALLEST) -> Image.Image:
    """Return the image enlarged until its shorter side has at least ``smallest`` pixels.

    The factor is a whole one, so that every pixel becomes a square.
    """
    factor = -(-smallest // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def side_by_side(
    left: Image.Image, right: Image.Image, titles: tuple[str, str] = ("original", "reconstruction")
) -> Image.Image:
    """Return two images of one size with a thin gap, enlarged where they are small, each below its title."""
    left, right = enlarge(left), enlarge(right)
    sheet = Image.new("RGB", (left.width + GAP + right.width, CAPTION + left.height), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for x, title, image in ((0, titles[0], left), (left.width + GAP, titles[1], right)):
        draw.text((x + 2, CAPTION // 2), title, TEXT, font, anchor="lm")
        sheet.paste(image, (x, CAPTION))
    return sheet


def contact_sheet(rows: Mapping[str, Sequence[Image.Image]], columns: int = COLUMNS) -> Image.Image:
    """Return a sheet of rows of pictures, each row with its title at the left.

    All rows have equally many pictures of one size, at least one. More than ``columns`` continue below.
    """
    titles, images = list(rows), [[enlarge(image) for image in row] for row in rows.values()]
    width, height = images[0][0].size
    count = len(images[0])
    columns = min(columns, count)
    bands = -(-count // columns)
    font = ImageFont.load_default(14)
    margin = 2 * GAP + int(max(font.getlength(title) for title in titles))
    band_height = len(titles) * (height + GAP) + 2 * GAP
    sheet = Image.new("RGB", (margin + columns * (width + GAP), bands * band_height - 2 * GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for r, title in enumerate(titles):
        for i, image in enumerate(images[r]):
            band, column = divmod(i, columns)
            top = band * band_height + r * (height + GAP)
            sheet.paste(image, (margin + column * (width + GAP), top))
            if column == 0:
                draw.text((GAP, top + height // 2), title, TEXT, font, anchor="lm")
    return sheet


def write_png(path: Path, image: Image.Image) -> None:
    """Write a picture, all of it or nothing, and make its folder. Raises OSError where that fails."""
    with replacing(path) as part:
        image.save(part, format="PNG")
