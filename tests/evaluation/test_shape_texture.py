"""Conflicts of shape and texture, against decisions and spectra known by hand."""

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.words import imagenet_wnids, wordnet_words
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.shape_texture import CATEGORIES, cue_conflict, phase_amplitude, spectral_conflict
from tests.evaluation.subjects import colors_subject, imagenet_subject


def test_cue_conflict_counts_decisions(tmp_path):
    for name in ("cat1-dog2", "cat2-car1", "dog1-cat3", "boat1-oven1", "cat5-cat6"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    result = cue_conflict(imagenet_subject(CATEGORIES["cat"]), tmp_path)
    assert (result.shape, result.texture, result.other) == (2, 1, 1)
    assert result.shape_bias == pytest.approx(2 / 3)
    assert result.cue_accuracy == pytest.approx(3 / 4)
    assert result.per_category == {"boat": None, "cat": 1.0, "dog": 0.0}
    Image.new("RGB", (32, 32)).save(tmp_path / "holiday.png")
    with pytest.raises(DataError, match="does not name its cues"):
        cue_conflict(imagenet_subject([0]), tmp_path)
    with pytest.raises(ConfigError, match="has 3 classes"):
        cue_conflict(colors_subject(), tmp_path)


def test_spectral_conflict(colors):
    images = np.random.default_rng(0).integers(60, 200, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(phase_amplitude(images, images), images)
    even = images // 4 * 2  # half the amplitudes of its double, at the same phases
    np.testing.assert_array_equal(phase_amplitude(even, 2 * even), 2 * even)
    np.testing.assert_array_equal(phase_amplitude(2 * even, even), even)
    steps = np.where(images > 130, 255, 0).astype(np.uint8)
    spectra = (np.fft.fft2(part[..., 0]) for part in (steps, steps[:, ::-1, :, :] // 2 + images // 2))
    of_shape, of_texture = spectra
    expected = np.fft.ifft2(of_shape * np.abs(of_texture) / np.abs(of_shape)).real
    assert expected.min() < -1
    mixed = phase_amplitude(steps, steps[:, ::-1, :, :] // 2 + images // 2)
    np.testing.assert_array_equal(mixed[..., 0], expected.round().clip(0, 255))
    assert expected.max() > 256
    # The mean of a channel is an amplitude: the color model follows "texture" only.
    result = spectral_conflict(colors_subject(), colors)
    assert (result.shape, result.texture) == (0, 6)


def test_categories_are_the_classes_of_these_names():
    """Of Geirhos et al.'s 16 categories. Of birds and dogs those of ImageNet's runs of them that are left out."""
    wnids, words = imagenet_wnids(), wordnet_words()

    def names(numbers):
        return [words[wnids[number]].split(",")[0] for number in numbers]

    few = {name: names(numbers) for name, numbers in CATEGORIES.items() if name not in ("bird", "dog")}
    assert few == {
        "airplane": ["airliner"],
        "bear": ["brown bear", "American black bear", "ice bear", "sloth bear"],
        "bicycle": ["bicycle-built-for-two", "mountain bike"],
        "boat": ["canoe", "fireboat", "lifeboat", "speedboat", "yawl"],
        "bottle": [
            "beer bottle", "pill bottle", "pop bottle", "water bottle", "water jug", "whiskey jug", "wine bottle",
        ],
        "car": ["beach wagon", "convertible", "sports car"],
        "cat": ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat", "cougar"],
        "chair": ["barber chair", "folding chair", "rocking chair", "throne"],
        "clock": ["analog clock", "digital clock", "wall clock"],
        "elephant": ["Indian elephant", "African elephant"],
        "keyboard": ["computer keyboard", "typewriter keyboard"],
        "knife": ["cleaver"],
        "oven": ["rotisserie"],
        "truck": [
            "fire engine", "garbage truck", "minivan", "moving van", "pickup", "police van", "tow truck",
            "trailer truck",
        ],
    }  # fmt: skip
    left_out = {name: set(range(1000)) - set(CATEGORIES[name]) for name in ("bird", "dog")}
    birds, dogs = [*range(7, 25), *range(80, 101), *range(127, 147)], range(151, 270)
    assert names(number for number in birds if number in left_out["bird"]) == [
        "cock", "ostrich", "jay", "kite", "peacock", "quail", "partridge", "drake", "crane", "albatross",
    ]  # fmt: skip
    assert set(CATEGORIES["bird"]) <= set(birds)
    assert names(number for number in dogs if number in left_out["dog"]) == [
        "Chihuahua", "cairn", "Lhasa", "kelpie", "boxer", "dalmatian", "Samoyed", "chow", "Cardigan", "timber wolf",
    ]  # fmt: skip
    assert set(CATEGORIES["dog"]) <= set(dogs)
