"""Pictures for people: side by side, and many on one sheet."""

from .side_by_side import contact_sheet, side_by_side, write_png

__all__ = ["contact_sheet", "side_by_side", "write_png"]
