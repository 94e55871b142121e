"""A choice that configurations and the command line offer alike. Needs nothing, so that `--help` answers at once."""

from typing import Literal

Orientation = Literal["upright", "stored"]
"""upright: photos are turned as their EXIF orientation says; stored: pixels as they lie in the file."""
