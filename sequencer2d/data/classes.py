"""Which output of a model stands for which class of the data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sequencer2d.data.sources import Source, shorten
from sequencer2d.errors import DataError


@dataclass(frozen=True)
class ClassMap:
    """The classes of data among a model's outputs.

    Attributes:
        outputs: int64 (classes of the data,), the output of each class.
        names: name of every output.
        remark: what was assumed where names don't decide; empty where they do.
    """

    outputs: np.ndarray
    names: tuple[str, ...]
    remark: str = ""


def match(model_names: Sequence[str] | None, num_outputs: int, source: Source) -> ClassMap:
    """Find the output of each class: by name, or by number and order where a side brings no names.

    Class folders that are called 0 to n − 1 mean the outputs of these numbers, whatever their order as text ("10" comes
    before "2"). Other folders are taken in torchvision's order, by text, and shards by their numbers.

    Args:
        model_names: name of each output; none: the model brings no names.
        num_outputs: of the model.
        source: the data. Shards without names may lack the model's last classes; other data must have them all.

    Raises:
        DataError: the classes are not the model's.
    """
    names = source.class_names
    inferred = bool(getattr(source, "classes_inferred", False))
    if len(names) != num_outputs and not (inferred and len(names) < num_outputs):
        raise DataError(_differ(model_names, num_outputs, names))
    if model_names is None or len(model_names) != num_outputs:
        outputs, remark = _by_number_or_order(names)
        of_output = dict(zip(outputs, names, strict=True))
        return ClassMap(outputs, tuple(of_output.get(i, f"class {i}") for i in range(num_outputs)), remark)
    if tuple(names) == tuple(model_names):
        return ClassMap(np.arange(num_outputs), tuple(model_names))
    place = {name: index for index, name in enumerate(model_names)}
    if len(place) == num_outputs and all(name in place for name in names):
        return ClassMap(np.array([place[name] for name in names]), tuple(model_names))
    if inferred:
        remark = "the data bring no class names: their class numbers are taken as the numbers of the model's outputs"
        return ClassMap(np.arange(len(names)), tuple(model_names), remark)
    raise DataError(_differ(model_names, num_outputs, names))


def numbers_of(names: Sequence[str]) -> list[int] | None:
    """The names as numbers if they are exactly 0 to n − 1, in any order; else None."""
    if not all(name.isascii() and name.isdigit() and len(name) < 10 for name in names):
        return None
    numbers = [int(name) for name in names]
    return numbers if sorted(numbers) == list(range(len(names))) else None


def _by_number_or_order(names: Sequence[str]) -> tuple[np.ndarray, str]:
    numbers = numbers_of(names)
    if numbers is not None:
        said = f"the model brings no class names: classes 0 to {len(names) - 1} are taken as its outputs' numbers"
        return np.array(numbers), said
    return np.arange(len(names)), (
        f"the model brings no class names: its outputs are taken for the data's classes in order ({shorten(names, 3)})"
    )


def _differ(model_names: Sequence[str] | None, num_outputs: int, names: Sequence[str]) -> str:
    if model_names is None:
        return f"the model has {num_outputs} classes and the data {len(names)}; use the data it is for"
    strange = [name for name in names if name not in model_names]
    missing = [name for name in model_names if name not in names]
    which = f"the model does not know {shorten(strange, 5)}" if strange else f"the data lack {shorten(missing, 5)}"
    return (
        f"the data's {len(names)} classes are not the model's {num_outputs}: {which}; "
        f"the model's begin with {', '.join(model_names[:5])}"
    )
