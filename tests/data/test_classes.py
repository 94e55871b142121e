"""Which output stands for which class, with and without names."""

import pytest

from sequencer2d.data.classes import match, numbers_of
from sequencer2d.errors import DataError


class Names:
    """As much of a source as matching needs."""

    def __init__(self, *names: str, inferred: bool = False) -> None:
        self.class_names, self.classes_inferred = names, inferred


NUMBERS = tuple(sorted(str(number) for number in range(12)))


def test_numbers_are_the_outputs_of_a_model_without_names() -> None:
    assert NUMBERS[:4] == ("0", "1", "10", "11")
    classes = match(None, 12, Names(*NUMBERS))  # type: ignore[arg-type]
    assert classes.outputs.tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert classes.names == tuple(str(number) for number in range(12))
    assert "classes 0 to 11 are taken as its outputs' numbers" in classes.remark


@pytest.mark.parametrize(
    "names", [("a", "b", "c"), ("1", "2", "3"), ("0", "1", "x"), ("0", "1", "1"), ("0", "1", "\u0662")]
)
def test_other_names_keep_their_order_and_that_is_said(names: tuple[str, ...]) -> None:
    classes = match(None, 3, Names(*names))  # type: ignore[arg-type]
    assert classes.outputs.tolist() == [0, 1, 2]
    assert "classes in order" in classes.remark
    assert names[0] in classes.remark


def test_names_decide_over_order() -> None:
    classes = match(("10", "2", "1", "0"), 4, Names("0", "1", "10", "2"))  # type: ignore[arg-type]
    assert classes.outputs.tolist() == [3, 2, 0, 1]
    assert classes.names == ("10", "2", "1", "0")
    assert not classes.remark


def test_the_same_names_stay_in_place_even_if_two_are_alike() -> None:
    classes = match(("crane", "crane", "maillot"), 3, Names("crane", "crane", "maillot"))  # type: ignore[arg-type]
    assert classes.outputs.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="are not the model's"):
        match(("crane", "crane", "maillot"), 3, Names("crane", "maillot", "crane"))  # type: ignore[arg-type]


def test_shards_without_names_go_by_number() -> None:
    shards = Names("0", "1", inferred=True)
    for names in (None, ("cat", "dog", "eel")):
        classes = match(names, 3, shards)  # type: ignore[arg-type]
        assert classes.outputs.tolist() == [0, 1]
        assert len(classes.names) == 3
        assert "number" in classes.remark
    assert match(("1", "0", "2"), 3, shards).outputs.tolist() == [1, 0]  # type: ignore[arg-type]


def test_other_classes_are_named() -> None:
    with pytest.raises(DataError, match="the model does not know eel"):
        match(("cat", "dog"), 2, Names("cat", "eel"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the data lack dog"):
        match(("cat", "dog", "eel"), 3, Names("cat", "eel"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the model has 3 classes and the data 2"):
        match(None, 3, Names("cat", "dog"))  # type: ignore[arg-type]


def test_numbers_of_names() -> None:
    assert numbers_of(["2", "0", "1"]) == [2, 0, 1]
    assert numbers_of(["00", "01"]) == [0, 1]
    assert numbers_of(["9" * 5000, "0"]) is None
