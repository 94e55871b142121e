"""Words for classes that are named by identifiers of WordNet."""

from pathlib import Path

import pytest

from sequencer2d.data.words import class_words, imagenet_wnids, readable, wordnet_words


def test_words_come_from_the_first_file_that_has_all_of_the_names(tmp_path: Path) -> None:
    few, all_ = tmp_path / "few", tmp_path / "all"
    for folder, text in ((few, "a\tant\n"), (all_, "a\tant, pismire\nb\tant, emmet\nc\tbee\n")):
        folder.mkdir()
        (folder / "words.txt").write_text(text)
    assert class_words([tmp_path, few, all_], ["c", "a"]) == ["bee", "ant"]
    assert class_words(all_, ["a", "b"]) == ["ant, pismire", "ant, emmet"], "two classes must not look alike"
    assert class_words([few], ["a", "b"]) is None


def test_identifiers_of_wordnet_are_known_without_a_file() -> None:
    assert class_words([], ["n01443537", "n02099601"]) == ["goldfish", "golden retriever"]
    assert class_words([], ["n01443537", "cat"]) is None
    assert class_words([], ["n01443537", "n99999999"]) is None
    assert class_words([], []) is None


def test_the_tables_are_those_of_timm() -> None:
    from timm.data import ImageNetInfo

    small, large = ImageNetInfo("imagenet-1k"), ImageNetInfo("imagenet-22k")
    assert imagenet_wnids() == tuple(small.label_names())
    assert {name: wordnet_words()[name] for name in large.label_names()} == large.label_descriptions(as_dict=True)


@pytest.mark.parametrize(
    ("name", "said"), [("n01440764", "tench"), ("n99999999", "n99999999"), ("cat", "cat"), ("n1", "n1")]
)
def test_a_name_for_people(name: str, said: str) -> None:
    assert readable(name) == said
