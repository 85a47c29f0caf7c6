"""Pictures are put side by side, or many on one sheet, for people."""

from .classes import captioned_grid, titled_images, two_columns
from .side_by_side import contact_sheet, side_by_side, write_png

__all__ = ["captioned_grid", "contact_sheet", "side_by_side", "titled_images", "two_columns", "write_png"]
