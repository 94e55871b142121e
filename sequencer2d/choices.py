"""Choices that configurations, modules and the command line offer alike, each stated once.

Needs nothing, so that `--help` and the table of variants answer at once.
"""

from typing import Literal

Orientation = Literal["upright", "stored"]
"""upright: photos are turned as their EXIF orientation says; stored: pixels as they lie in the file."""
DeviceKind = Literal["auto", "cpu", "cuda"]
"""auto: CUDA if there is a GPU."""
AXES = {"both": ("v", "h"), "vertical": ("v",), "horizontal": ("h",), "flatten": ("",)}
"""The axes that a token mixer scans, by the ends of its recurrent layers' names."""
FUSIONS = ("concat", "add", "none")
"""How a token mixer joins its scans."""
GATES = ("stored", "recomputed")
"""What becomes of the gates until the backward pass."""
POOLS = ("avg", "max", "")
"""How a map is pooled before the classifier; empty: not at all."""
PADS = ("crop", "zeros")
"""What becomes of images whose sides are no multiple of the stride."""
OUTPUT_LAYOUTS = ("NCHW", "NHWC", "tokens")
"""How a block's output is laid out; tokens: (B, prefix + H·W, C)."""
