"""What a file says of its model: which fields there are, of which type and within which bounds.

The description stands in checkpoints (`meta`) and in exported models, and others may have written it. It is checked
here, once, before anything is built or sized by it; docs/design.md describes it for readers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sequencer2d.errors import CheckpointError
from sequencer2d.input_spec import CropMode, Interpolation

FORMAT = 1
MOST_CLASSES = 10**7
LARGEST_IMAGE = 4096
"""Pixels of a side that a description may ask for; the command line takes any size."""
INTERPOLATIONS = get_args(Interpolation)
CROP_MODES = get_args(CropMode)


@dataclass(frozen=True)
class Field:
    """A field's type and bounds: in words, and as a test of any value."""

    expected: str
    accepts: Callable[[Any], bool]


def is_integer(value: Any, least: int, most: int) -> bool:
    """Whether `value` is an integer (no bool) within bounds, both included."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any, least: float, most: float) -> bool:
    """Whether `value` is a finite number (no bool) within bounds, both included."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def is_text(value: Any, longest: int = 1000) -> bool:
    """Whether `value` is text of at most `longest` characters that UTF-8, or `os.fsencode` as a file name, can hold."""
    if not isinstance(value, str) or len(value) > longest:
        return False
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _integer(least: int, most: int) -> Field:
    return Field(f"an integer from {least} to {most}", lambda value: is_integer(value, least, most))


def _number(least: float, most: float) -> Field:
    return Field(f"a number from {least:g} to {most:g}", lambda value: is_number(value, least, most))


def _list(of: Field, fewest: int, most: int, what: str) -> Field:
    def accepts(value: Any) -> bool:
        return isinstance(value, list | tuple) and fewest <= len(value) <= most and all(map(of.accepts, value))

    return Field(f"a list of {what}", accepts)


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(is_text(key) for key in value)


_TEXT = Field("text", is_text)
_MAPPING = Field("an object with text as keys", _mapping)
_NAMES = _list(_TEXT, 0, MOST_CLASSES, "one text a class, or null")

FIELDS: dict[str, Field] = {
    "format": _integer(1, 10**6),
    "model": _TEXT,
    "task": _TEXT,
    "overrides": _MAPPING,
    "num_classes": _integer(0, MOST_CLASSES),
    "in_chans": _integer(1, 4096),
    "class_names": Field(_NAMES.expected, lambda value: value is None or _NAMES.accepts(value)),
    "class_descriptions": Field(_NAMES.expected, lambda value: value is None or _NAMES.accepts(value)),
    "input": _MAPPING,
    "input.size": _list(_integer(1, LARGEST_IMAGE), 2, 2, f"two integers from 1 to {LARGEST_IMAGE}"),
    "input.mean": _list(_number(-1e6, 1e6), 1, 4096, "numbers, one a channel"),
    "input.std": _list(_number(1e-9, 1e6), 1, 4096, "positive numbers, one a channel"),
    "input.interpolation": Field(f"one of {', '.join(INTERPOLATIONS)}", lambda v: is_text(v) and v in INTERPOLATIONS),
    "input.crop_pct": _number(0.01, 1),
    "input.crop_mode": Field(f"one of {', '.join(CROP_MODES)}", lambda v: is_text(v) and v in CROP_MODES),
    "artifact": _MAPPING,
    "artifact.version": _integer(1, 10**6),
    "artifact.kind": _TEXT,
    "artifact.precision": _TEXT,
    "artifact.sequencer2d": _TEXT,
    "artifact.torch": _TEXT,
    "artifact.minimum_size": _integer(1, 10**5),
}
"""Every field by its path."""

ARTIFACT_FIELDS = (
    "num_classes", "in_chans", "class_names", "input", "input.size", "input.mean", "input.std", "input.interpolation",
    "input.crop_pct", "artifact", "artifact.version", "artifact.kind", "artifact.precision", "artifact.sequencer2d",
    "artifact.torch", "artifact.minimum_size",
)  # fmt: skip
"""Those that an exported model needs: its weights cannot be asked."""


def check_description(meta: Any, where: object, required: Iterable[str] = ()) -> dict[str, Any]:
    """Return `meta` if each of its fields has the type and the bounds of `FIELDS`.

    Args:
        meta: what was read; entries that are not in the table are left alone.
        where: the file, for the message.
        required: fields that must be there.

    Raises:
        CheckpointError: it has not, it was written by a newer version, or a required field is missing.
    """
    if not _mapping(meta):
        raise CheckpointError(f"{where}: its description is {_shown(meta)}; expected {_MAPPING.expected}")
    version = meta.get("format", FORMAT)
    if version != FORMAT and FIELDS["format"].accepts(version):
        raise CheckpointError(
            f"{where} has format {version}, this version reads {FORMAT}: update sequencer2d to read it"
        )
    for path, field in FIELDS.items():
        there, value = _look_up(meta, path)
        if not there and path in required:
            raise CheckpointError(f"{where}: its description lacks {path}, {field.expected}")
        if there and not field.accepts(value):
            raise CheckpointError(
                f"{where}: in its description {path} is {_shown(value)}; expected {field.expected}. The file is "
                "damaged, or was not written by this package"
            )
    return dict(meta)


def _look_up(meta: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    parent, _, name = path.rpartition(".")
    holder = meta.get(parent, {}) if parent else meta
    return name in holder, holder.get(name)


def _shown(value: Any) -> str:
    """A short form for messages: a hostile value may be as long or as deep as it likes."""
    if isinstance(value, str):
        return repr(value[:40]) + (" …" if len(value) > 40 else "")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "an integer of more than 18 digits"
    if isinstance(value, list | tuple) and len(value) <= 4 and all(isinstance(v, int | float | str) for v in value):
        return f"[{', '.join(map(_shown, value))}]"
    return f"a {type(value).__name__}"
