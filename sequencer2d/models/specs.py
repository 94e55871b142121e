"""How a command line names a model. Needs no torch, so that a name is checked before torch is loaded."""

import os
from pathlib import Path

from sequencer2d.models.locate import HUB_PREFIXES, locate
from sequencer2d.peers.variants import PEERS

PREFIX = "timm:"
RANDOM = "random:"


def is_peer(name: str) -> bool:
    """Whether `name` asks for another model than a Sequencer: one of timm's, or of the table of peers."""
    return name.startswith(PREFIX) or name in PEERS


def split_label(spec: str | os.PathLike[str]) -> tuple[str, str]:
    """(label, the rest) of "LABEL@MODEL"; the label is empty where there is none."""
    spec = str(spec)
    label, separator, rest = spec.partition("@")
    if separator and label and not any(character in label for character in ":/\\") and not Path(spec).exists():
        return label, rest
    return "", spec


def weights_file(spec: str) -> Path | None:
    """The file of a model that is here; None for one that a library, the package or the network holds."""
    place = split_label(spec)[1]
    path = Path(place.rpartition("=")[2]).expanduser()
    if place.startswith((*HUB_PREFIXES, RANDOM)) or not path.exists():
        return None
    return locate(path)[0]


def identity(spec: str) -> str:
    """What tells a model from others: its file's absolute path, else its name without the label."""
    path = weights_file(spec)
    return split_label(spec)[1] if path is None else str(path.resolve())


def check_spec(spec: str) -> None:
    """Check that a model is named, or that its file is here.

    What only a library or the network knows, such as timm:NAME and hf-hub:owner/name, is left to them.

    Raises:
        CheckpointError: no file or folder there that could be a checkpoint.
    """
    spec = split_label(spec)[1]
    if spec.startswith((*HUB_PREFIXES, RANDOM)):
        return
    bare, _, file = spec.partition("=")
    if is_peer(bare) and (file or not Path(spec).exists()):
        if file:
            locate(file)
        return
    locate(spec)
