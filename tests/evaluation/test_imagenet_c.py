"""The released ImageNet-C: read as its archives unpack, with a crop of 1.0; an mCE that is worked out by hand."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.corruptions import CORRUPTIONS
from sequencer2d.evaluation.imagenet_c import Release, open_release, release_errors
from sequencer2d.evaluation.mce import ALEXNET_ERRORS, mean_corruption_error
from sequencer2d.evaluation.subject import Subject
from tests.evaluation.subjects import PLAIN, small

CLASSES = (3, 100, 500, 900)  # outputs of an ImageNet model; their folders sort in another order than 0, 1, 2, 3 would
LEVELS = {output: 120 + 25 * place for place, output in enumerate(CLASSES)}
GROUPS = {"noise": 3, "blur": 4, "weather": 4, "digital": 4}  # archives, and how many corruptions each holds


class Shade(nn.Module):
    """Names the class whose gray level is nearest to the mean of the whole image."""

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.full((1000,), 1e3))
        for output, level in LEVELS.items():
            self.levels.data[output] = level / 255

    def forward(self, x):
        return -1e3 * (x.mean(dim=(1, 2, 3))[:, None] - self.levels) ** 2


def shade(**options):
    data = DataConfig(image_size=32, crop_pct=0.875, **PLAIN)
    return Subject("shade", Shade(), data, options.get("names", imagenet_wnids()))


def wrong_in(row, severity):
    """How many of the four images of a cell are made so that the model gets them wrong."""
    return (row + severity) % 5


def write_cell(folder, wrong):
    """Four images of 32 pixels whose mean is the level of a class, but not that of their central 28 pixels."""
    for place, output in enumerate(CLASSES):
        level = LEVELS[CLASSES[(place + 1) % 4]] if place < wrong else LEVELS[output]
        pixels = np.full((32, 32), level + 15.0)
        border = np.ones((32, 32), dtype=bool)
        border[2:-2, 2:-2] = False
        pixels[border] = level - 15 * (28**2 / (32**2 - 28**2))
        class_folder = folder / imagenet_wnids()[output]
        class_folder.mkdir(parents=True)
        image = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).convert("RGB")
        image.save(class_folder / f"ILSVRC2012_val_{place:08d}.JPEG", quality=100)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A release of four images a cell, in the folders that its archives make."""
    root = tmp_path_factory.mktemp("imagenet-c")
    rows = iter(enumerate(CORRUPTIONS))
    for group, count in GROUPS.items():
        for row, name in (next(rows) for _ in range(count)):
            for severity in range(1, 6):
                write_cell(root / group / name / str(severity), wrong_in(row, severity))
    return root


@pytest.fixture
def flat(made, tmp_path):
    """A copy of it to damage, without the archives' folders."""
    for group in GROUPS:
        shutil.copytree(made / group, tmp_path / "c", dirs_exist_ok=True)
    return tmp_path / "c"


def test_mce_of_a_worked_example():
    """Errors equal to AlexNet's are 100 %; half of them in every severity 50 %; one corruption doubled adds 100/15."""
    alexnet = np.repeat(np.asarray(list(ALEXNET_ERRORS.values()))[:, None], 5, axis=1)
    assert mean_corruption_error(alexnet) == pytest.approx(100)
    assert mean_corruption_error(alexnet / 2) == pytest.approx(50)
    doubled = alexnet.copy()
    doubled[3] *= 2
    assert mean_corruption_error(doubled) == pytest.approx(100 + 100 / 15)
    spread = alexnet * np.asarray([0.2, 0.6, 1.0, 1.4, 1.8])
    assert mean_corruption_error(spread) == pytest.approx(100)


def test_mce_of_a_release_made_by_hand(made):
    counted = []
    result = release_errors(shade(), open_release(made), workers=0, progress=counted.append)
    wrong = np.asarray([[wrong_in(row, severity) for severity in range(1, 6)] for row in range(15)])
    np.testing.assert_array_equal(result.error, wrong / 4)
    # Each row's errors are 0, 1/4 … 4/4 in some order: a mean of one half, over AlexNet's of each corruption.
    assert result.mce == pytest.approx(100 * np.mean([0.5 / error for error in ALEXNET_ERRORS.values()]))
    assert result.mce == pytest.approx(64.6726, abs=1e-3)
    assert (result.count, result.released, sum(counted)) == (4, True, 15 * 5 * 4)
    assert np.isnan(result.clean_error)


def test_nothing_of_an_image_is_cut_off(made):
    """With the crop of the model's own evaluation the means, and so the answers, are others."""
    cell = FolderSource(made / "noise" / "gaussian_noise" / "5", "")  # row 0: nothing is wrong at severity 5
    release = open_release(made, corruptions=["gaussian_noise"], severities=[5])
    result = release_errors(shade(), release, clean=cell, workers=0)
    assert result.error[0, 0] == 0
    assert result.clean_error == 3 / 4  # all but the last class are taken for the next one


def test_some_images_are_the_same_of_every_cell(made):
    result = release_errors(shade(), open_release(made, severities=[1, 2]), limit=2, seed=1, workers=0)
    assert result.count == 2
    wrong = np.sort(np.random.default_rng(1).choice(4, 2, replace=False))
    for row in range(15):
        for column in (0, 1):
            # Folders sort as the outputs do, so that the first images are the wrong ones.
            assert result.error[row, column] == np.mean(wrong < wrong_in(row, column + 1))


class Listed(FolderSource):
    """As many images of some classes, without files."""

    def __init__(self, count, class_names):
        self.count, self.class_names = count, class_names

    def __len__(self):
        return self.count


def test_a_release_is_complete_with_every_cell_class_and_image(tmp_path):
    names = tuple(sorted(imagenet_wnids()))
    cells = {(name, severity): Listed(50_000, names) for name in CORRUPTIONS for severity in range(1, 6)}

    def complete(cells):
        return Release(tmp_path, CORRUPTIONS, (1, 2, 3, 4, 5), cells).complete

    assert complete(cells)
    assert not complete(dict(list(cells.items())[1:]))
    assert not complete({cell: Listed(49_999, names) for cell in cells})
    assert not complete({cell: Listed(50_000, names[1:]) for cell in cells})


@pytest.mark.parametrize("asked", [{"severities": [1, 2, 3, 4]}, {"corruptions": CORRUPTIONS[:14]}])
def test_there_is_no_mce_of_a_part(made, asked):
    assert release_errors(shade(), open_release(made, **asked), limit=1, workers=0).mce is None


def test_there_is_no_mce_among_other_classes(made):
    """AlexNet was asked among 1000 classes."""
    names = tuple(imagenet_wnids()[output] for output in CLASSES[:3])
    subject = replace(small(), class_names=names)
    result = release_errors(subject, open_release(made), common_only=True, workers=0)
    assert (result.count, result.mce) == (3, None)
    with pytest.raises(ConfigError, match="1 of the 4 classes of the images are not among the 3 of small"):
        release_errors(subject, open_release(made), workers=0)


def test_worker_processes_read_the_same(made):
    release = open_release(made, corruptions=["fog"], severities=[2])
    results = [release_errors(shade(), release, workers=workers, batch_size=3) for workers in (0, 2)]
    np.testing.assert_array_equal(results[0].confidence, results[1].confidence)


def test_a_release_without_the_archives_folders_is_the_same(made, flat):
    paths = [sorted(str(cell.folder.relative_to(root)) for cell in open_release(root).cells.values())
             for root in (made, flat)]  # fmt: skip
    assert paths[1] == [path.split("/", 1)[1] for path in sorted(paths[0], key=lambda path: path.split("/", 1)[1])]


def test_what_is_missing_is_named(flat):
    with pytest.raises(DataError, match=r"is missing; expected .*<corruption>/<severity>/<class>"):
        open_release(flat / "nowhere")
    with pytest.raises(DataError, match="is not ImageNet-C: it has no folder gaussian_noise"):
        open_release(flat / "fog")
    with pytest.raises(ConfigError, match="no corruption 'rain'"):
        open_release(flat, corruptions=["rain"])
    with pytest.raises(ConfigError, match="fog is named twice"):
        open_release(flat, corruptions=["fog", "fog"])
    shutil.rmtree(flat / "snow" / "4" / imagenet_wnids()[3])
    with pytest.raises(DataError, match=r"snow/4 holds 3 images in 3 classes, .*gaussian_noise/1 4 in 4"):
        open_release(flat)
    shutil.rmtree(flat / "snow" / "4")
    with pytest.raises(DataError, match="snow has no severity 4"):
        open_release(flat)
    shutil.rmtree(flat / "frost")
    with pytest.raises(DataError, match=r"lacks 1 of 15 corruptions \(frost\)"):
        open_release(flat)


def test_an_image_that_cannot_be_read_stops_the_measurement(flat):
    """Left out, it would change the error of its cell unseen."""
    path = next((flat / "fog" / "1").rglob("*.JPEG"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=f"images that cannot be read: 1.*{path.name}"):
        release_errors(shade(), open_release(flat, corruptions=["fog"]), workers=0)
