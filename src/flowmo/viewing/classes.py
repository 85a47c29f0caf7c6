"""Generated pictures are shown by class, of one generator or of two (Figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from .side_by_side import BACKGROUND, GAP, TEXT, enlarge

CAPTION = 18


def captioned_grid(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Return a sheet of rows of pictures, each row below its title.

    All pictures are of one size; they are enlarged where they are small.
    """
    images = {title: [enlarge(image) for image in row] for title, row in rows.items()}
    width, height = next(row[0].size for row in images.values() if row)
    columns = max(len(row) for row in images.values())
    row_height = CAPTION + height + GAP
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, len(images) * row_height - GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for r, (title, row) in enumerate(images.items()):
        draw.text((2, r * row_height + CAPTION // 2), title, TEXT, font, anchor="lm")
        for i, image in enumerate(row):
            sheet.paste(image, (i * (width + GAP), r * row_height + CAPTION))
    return sheet


def titled_images(titles: Sequence[str], images: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Return a sheet of images, each below its title, of which as much is shown as there is room for.

    There is at least one image, and all are of one size; they are enlarged where they are small.
    """
    large = [enlarge(image) for image in images]
    width, height = large[0].size
    columns = min(columns, len(large))
    cell = width + GAP, CAPTION + height + GAP
    sheet = Image.new("RGB", (columns * cell[0] - GAP, -(-len(large) // columns) * cell[1] - GAP), BACKGROUND)
    font = ImageFont.load_default(13)
    for i, (title, image) in enumerate(zip(titles, large, strict=True)):
        x, y = i % columns * cell[0], i // columns * cell[1]
        strip = Image.new("RGB", (width, CAPTION), BACKGROUND)
        ImageDraw.Draw(strip).text((2, CAPTION // 2), title, TEXT, font, anchor="lm")
        sheet.paste(strip, (x, y))
        sheet.paste(image, (x, y + CAPTION))
    return sheet


def two_columns(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two sheets side by side, with room between them."""
    gap = 6 * GAP
    sheet = Image.new("RGB", (left.width + gap + right.width, max(left.height, right.height)), BACKGROUND)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap, 0))
    return sheet
