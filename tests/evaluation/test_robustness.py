"""Corruptions and the errors under them: against references and worked examples."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sequencer2d.data.config import DataConfig
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import ConfigError, DataError, InputError
from sequencer2d.evaluation import corruptions
from sequencer2d.evaluation.corruptions import CORRUPTIONS, corrupt
from sequencer2d.evaluation.mce import CorruptionResult, cell_figures, check_names
from sequencer2d.evaluation.pixels import match_classes, read_batches, read_images
from sequencer2d.evaluation.robustness import (
    _ahead,
    _sharing,
    compare_corruption_errors,
    corruption_errors,
)
from sequencer2d.evaluation.subject import Subject
from tests.evaluation.subjects import Always, MeanColor, colors_subject, small

needs_corruptions = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("imagecorruptions"),
    reason="imagecorruptions-imaug is not installed",
)


@needs_corruptions
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_changes_the_image_more_with_severity_and_the_same_every_time(name):
    rows, columns = np.mgrid[:48, :40]
    noise = np.random.default_rng(0).integers(0, 60, (48, 40, 3))
    image = (
        (80 + 60 * np.sin(rows / 5)[..., None] + 50 * np.cos(columns / 7)[..., None] + noise)
        .clip(0, 255)
        .astype(np.uint8)
    )
    np.random.seed(5)
    expected_next = np.random.get_state()[1].copy()
    changed = [corrupt(image, name, severity, seed=3) for severity in (1, 5)]
    assert (np.random.get_state()[1] == expected_next).all(), "numpy's global generator must be left alone"
    assert changed[0].shape == image.shape
    assert changed[0].dtype == np.uint8
    np.testing.assert_array_equal(changed[0], corrupt(image, name, 1, seed=3))
    distance = [np.abs(c.astype(float) - image).mean() for c in changed]
    assert 0 < distance[0] < distance[1]


@needs_corruptions
def test_errors_under_corruption(colors, tmp_path):
    result = corruption_errors(colors_subject(), colors, corruptions=("gaussian_noise", "contrast"), severities=(1, 5))
    assert (result.clean_error, result.count) == (0, 6)
    np.testing.assert_array_equal(result.error, np.zeros((2, 2)))
    assert result.mce is None
    logits = torch.tensor([200 / 255, 0, 0])
    assert result.clean_calibration == pytest.approx(1 - logits.softmax(0)[0].item(), abs=1e-6)
    assert result.confidence[1, 1] < result.clean_confidence
    result.save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as file:
        assert file["error"].shape == (2, 2)


@needs_corruptions
def test_corruptions_made_on_the_fly_have_no_mce(colors):
    """Not even all of them, of a model of ImageNet's 1000 classes: AlexNet's errors are of the released files."""
    subject = Subject("always", Always(1000, [0]), DataConfig(image_size=32), imagenet_wnids())

    class Tench:
        class_names = ("n01440764",)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return colors[0][0], 0

    result = corruption_errors(subject, Tench())
    assert result.error.shape == (15, 5)
    assert (result.mce, result.released) == (None, False)
    assert "not ImageNet-C" in result.title


@needs_corruptions
def test_worker_processes_give_the_same(colors):
    options = {"corruptions": ("shot_noise",), "severities": (3,)}
    here = corruption_errors(colors_subject(), colors, **options)
    there = corruption_errors(colors_subject(), colors, workers=1, **options)
    np.testing.assert_array_equal(here.confidence, there.confidence)


@needs_corruptions
def test_models_of_one_image_size_share_the_corrupted_images(colors, monkeypatch):
    """Each gets what it gets alone; only the one of another size has images of its own corrupted."""
    options = {"corruptions": ("shot_noise", "contrast"), "severities": (1, 3)}
    subjects = [colors_subject(32), colors_subject(40), small()]
    subjects[2] = replace(subjects[2], data=subjects[0].data)
    alone = [corruption_errors(subject, colors, **options) for subject in subjects]
    sizes = []

    def counting(image, *cell, seed):
        sizes.append(len(image))
        return corrupt(image, *cell, seed=seed)

    monkeypatch.setattr(corruptions, "corrupt", counting)
    counted = []
    together = compare_corruption_errors(subjects, colors, progress=counted.append, **options)
    assert (sizes.count(32), sizes.count(40)) == (6 * 4, 6 * 4)
    assert sum(counted) == 2 * 6 * 4
    assert [result.model for result in together] == ["colors", "colors", "small"]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.confidence, other.confidence)
        np.testing.assert_array_equal(one.error, other.error)


def test_models_share_images_where_every_setting_of_their_evaluation_is_the_same():
    data = DataConfig(image_size=32, crop_pct=0.9)
    others = [
        data, replace(data, mean=(0, 0, 0)), replace(data, image_size=40), replace(data, crop_pct=0.8),
        replace(data, eval_interpolation="bilinear"), replace(data, eval_crop="border"), replace(data, batch_size=1),
    ]  # fmt: skip
    assert _sharing([replace(colors_subject(), data=one) for one in others]) == [[0, 1, 6], [2], [3], [4], [5]]


def test_work_is_begun_some_items_ahead():
    begun = []
    items = _ahead((begun.append(item) or item for item in range(5)), 2)
    assert next(items) == 0
    assert begun == [0, 1, 2]
    assert [*items] == [1, 2, 3, 4]


@needs_corruptions
def test_a_corrupted_image_does_not_depend_on_the_others(colors):
    """Nor on how many go through the model at once."""
    options = {"corruptions": ("gaussian_noise", "fog"), "severities": (2, 4)}
    one, many = (corruption_errors(colors_subject(), colors, batch_size=size, **options) for size in (1, 64))
    np.testing.assert_allclose(one.confidence, many.confidence, rtol=1e-6)


def test_processes_that_corrupt_start_without_torch():
    """They start with every analysis, one for each core: importing torch and timm takes longer than the work."""
    code = "import sys, sequencer2d.evaluation.corruptions; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_corruptions
def test_mistakes_with_corruptions(colors):
    with pytest.raises(ConfigError, match="no corruption 'rain'; there are: gaussian_noise"):
        corruption_errors(colors_subject(), colors, corruptions=("rain",))
    with pytest.raises(InputError, match="at least 32×32 pixels, these are 24×24"):
        corruption_errors(colors_subject(24), colors)


def test_what_is_assumed_of_classes_is_said_once_for_all_cells(colors, caplog):
    subject = Subject("x", MeanColor(), DataConfig(), ("class 0", "class 1", "class 2"), names_known=False)
    for cell in (subject, subject, subject.resized(64)):
        assert match_classes(cell, colors).tolist() == [0, 1, 2]
    assert caplog.text.count("brings no class names") == 1


def test_images_that_cannot_be_read_are_named(colors, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        read_images([tmp_path / "empty"], DataConfig())
    broken = tmp_path / "c" / "red" / "1.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png"):
        list(read_batches(colors, DataConfig(image_size=32)))
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png"):
        read_images([tmp_path / "c"], DataConfig(image_size=32))


@needs_corruptions
def test_impulse_noise_sets_the_released_shares_to_black_or_white_and_leaves_the_rest():
    image = np.full((200, 200, 3), 77, dtype=np.uint8)
    for severity, share in zip(range(1, 6), (0.03, 0.06, 0.09, 0.17, 0.27), strict=True):
        noisy = corrupt(image, "impulse_noise", severity)
        assert set(np.unique(noisy)) == {0, 77, 255}
        assert (noisy != 77).mean() == pytest.approx(share, rel=0.05)
        assert (noisy == 0).mean() == pytest.approx(share / 2, rel=0.1)


@needs_corruptions
def test_a_process_that_corrupts_has_one_thread():
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    corruptions.start_worker()
    assert cv2.getNumThreads() == 1
    cv2.setNumThreads(before)


@needs_corruptions
def test_corruptions_take_images_from_32_pixels_on():
    corrupt(np.zeros((32, 33, 3), dtype=np.uint8), "contrast", 1)
    with pytest.raises(InputError, match="at least 32×32 pixels, got 33×31"):
        corrupt(np.zeros((33, 31, 3), dtype=np.uint8), "contrast", 1)
    for severity in (0, 6):
        with pytest.raises(ConfigError, match=f"severity {severity}; expected 1 to 5"):
            corrupt(np.zeros((32, 32, 3), dtype=np.uint8), "contrast", severity)


def corruption_result(**options):
    table = np.arange(75.0).reshape(15, 5) / 100
    fields = {"corruptions": CORRUPTIONS, "severities": (1, 2, 3, 4, 5), "error": table, "confidence": table}
    fields |= {"clean_error": 0.1, "clean_confidence": 0.2, "clean_calibration": 0.3, "count": 4}
    return CorruptionResult(model="x", calibration=table, **fields, **options)


@pytest.mark.parametrize("released, imagenet", [(False, False), (True, False), (False, True), (True, True)])
def test_an_mce_is_stored_where_there_is_one(tmp_path, released, imagenet):
    result = corruption_result(released=released, imagenet=imagenet)
    assert (result.mce is not None) is (released and imagenet)
    assert result.mean_error == pytest.approx(0.37)
    titles = ("corruptions made on the fly", "released images in ImageNet-C", "images of the released ImageNet-C")
    assert result.title.startswith(titles[released + (released and imagenet)])
    result.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as stored:
        assert ("mce" in stored) is (released and imagenet)
        assert float(stored["clean_error"]) == 0.1


def test_corruptions_and_severities_are_named_once_and_exist():
    check_names(("fog",), (1, 5))
    for names, severities, message in (
        (("fog",), (0,), "no severity 0"),
        (("fog",), (6,), "no severity 6"),
        (("fog", "snow", "fog"), (1,), "fog is named twice"),
        (("fog",), (2, 2), "2 is named twice"),
        ((), (1,), "no corruption or no severity"),
        (("fog",), (), "no corruption or no severity"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_names(names, severities)


def test_figures_of_a_cell_by_hand():
    hits, confidences = np.array([True, True, True, False]), np.array([0.9, 0.9, 0.9, 0.9])
    assert cell_figures(hits, confidences) == pytest.approx((0.25, 0.9, 0.15))
    assert {type(value) for value in cell_figures(hits, confidences)} == {float}
