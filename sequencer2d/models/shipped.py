"""Weights that come with the package: found without network, checked before they are read. Needs no torch."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from sequencer2d.errors import CheckpointError

FOLDER = Path(__file__).parent / "weights"


class Shipped(NamedTuple):
    """A file of weights in `FOLDER`."""

    file: str
    sha256: str
    tag: str
    """What the weights were trained on, as timm's tags name it."""
    num_classes: int


SHIPPED: dict[str, Shipped] = {
    "sequencer2d_n_p4": Shipped(
        "sequencer2d_n_p4.tiny_imagenet.safetensors",
        "3c8f69ace2c76f621f78b287a86b2f3fc9a1744c8154915474d968ef71f05cce",
        "tiny_imagenet",
        200,
    )
}
"""By variant. The first one is what `sequencer2d predict photo.jpg` takes."""


def shipped_file(name: str) -> Path:
    """The file of the weights of a variant in `SHIPPED`.

    Raises:
        CheckpointError: the installation lacks it, or it is not what was shipped.
    """
    row = SHIPPED[name]
    path = FOLDER / row.file
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"the weights of {name} are missing from this installation ({path}: {error.strerror}); install sequencer2d "
            "again"
        ) from error
    if digest != row.sha256:
        raise CheckpointError(
            f"the weights of {name} in this installation are damaged ({path} has another SHA-256 than was shipped); "
            "install sequencer2d again"
        )
    return path


def default_model() -> str:
    """The variant that is taken where none is named. Raises `CheckpointError` if no weights come with the package."""
    for name in SHIPPED:
        return name
    raise CheckpointError(
        "no model comes with this version of sequencer2d: name one, a run's folder, a file or hf-hub:owner/name"
    )
