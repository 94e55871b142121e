"""Corruptions, resolution, shifted sets, shape and texture: against references and worked examples."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.words import imagenet_wnids, wordnet_words
from sequencer2d.errors import ConfigError, DataError, InputError
from sequencer2d.evaluation import corruptions
from sequencer2d.evaluation.corruptions import CORRUPTIONS, corrupt
from sequencer2d.evaluation.mce import CorruptionResult, cell_figures, check_names
from sequencer2d.evaluation.pixels import match_classes, read_batches, read_images
from sequencer2d.evaluation.resolution import ResolutionResult, default_sizes, model_stride, resolution_sweep
from sequencer2d.evaluation.robustness import (
    _ahead,
    _sharing,
    compare_corruption_errors,
    corruption_errors,
)
from sequencer2d.evaluation.shape_texture import CATEGORIES, cue_conflict, phase_amplitude, spectral_conflict
from sequencer2d.evaluation.shifted import evaluate_shifted, open_shifted
from sequencer2d.evaluation.subject import Subject, load_subject
from sequencer2d.models import create_model
from tests.evaluation.subjects import MeanColor, colors_subject, small

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


def test_sizes_of_the_paper_and_of_small_images():
    full = create_model("sequencer2d_s", depths=(1, 1, 1, 1), num_classes=2)
    subject = Subject("s", full, DataConfig(), ("a", "b"))
    assert default_sizes(subject) == (112, 140, 168, 196, 224, 252, 280, 308, 336, 364, 392, 420, 448)
    resnet = load_subject("random:resnet18", num_classes=2)
    assert default_sizes(resnet) == tuple(range(128, 449, 32))
    assert default_sizes(small()) == (16, 24, 32, 40, 48, 56, 64)


def test_resolution_sweep(colors):
    result = resolution_sweep(colors_subject(), colors, (16, 64))
    assert result.sizes.tolist() == [16, 32, 64]
    np.testing.assert_array_equal(result.relative, 1)


def test_a_vit_is_resized_and_a_model_of_one_size_refuses(colors):
    sizes = {}
    for name in ("vit_tiny_patch16_224", "mixer_s32_224"):
        subject = load_subject(f"random:{name}", num_classes=3)
        subject = Subject(name, subject.model, subject.data, ("red", "green", "blue"))
        sizes[name] = resolution_sweep(subject, colors, (112,), limit=2)
    assert sizes["vit_tiny_patch16_224"].sizes.tolist() == [112, 224]
    assert sizes["mixer_s32_224"].sizes.tolist() == [224]
    assert list(sizes["mixer_s32_224"].refused) == [112]


def wnid_folder(root, names, count=1):
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(root / name / f"{name}_{index}.png")
    return root


class Always(nn.Module):
    """Prefers the given outputs in order, whatever the image."""

    def __init__(self, classes, preferred):
        super().__init__()
        logits = torch.zeros(classes)
        for rank, index in enumerate(preferred):
            logits[index] = len(preferred) - rank
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def imagenet_subject(preferred):
    return Subject("always", Always(1000, preferred), DataConfig(image_size=32), imagenet_wnids())


def test_imagenet_a_asks_about_its_200_classes_only(tmp_path):
    """Output 0 (tench) is no class of ImageNet-A: a model that prefers it is judged by its next choice."""
    wnids = imagenet_wnids()
    stingray, ostrich = wnids.index("n01498041"), wnids.index("n01518878")
    root = wnid_folder(tmp_path / "a", ["n01498041", "n01531178"])
    result = evaluate_shifted(imagenet_subject([0, stingray, ostrich]), open_shifted("imagenet-a", root))
    assert result.top1 == 50
    assert len(result.class_names) == 200
    with pytest.raises(DataError, match="is not imagenet-r"):
        open_shifted("imagenet-r", wnid_folder(tmp_path / "x", ["n01440764", "n99999999"]))


def test_imagenet_v2_folders_are_numbers(tmp_path):
    shifted = open_shifted("imagenet-v2", wnid_folder(tmp_path / "v2", ["0", "10", "2"]))
    assert shifted.wnids == tuple(imagenet_wnids()[number] for number in (0, 10, 2))
    assert evaluate_shifted(imagenet_subject([10]), shifted).top1 == pytest.approx(100 / 3)


def test_real_takes_any_of_its_labels_and_leaves_out_images_without(tmp_path):
    from sequencer2d.evaluation.shifted import _timm_file

    labels = json.loads(_timm_file("imagenet_real_labels.json"))
    several = next(i for i, given in enumerate(labels) if len(given) > 1)
    none = next(i for i, given in enumerate(labels) if not given)
    other = next(i for i, given in enumerate(labels) if given and not set(given) & set(labels[several]))
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    for index in (several, none, other):
        Image.new("RGB", (32, 32)).save(folder / f"ILSVRC2012_val_{index + 1:08d}.png")
    result = evaluate_shifted(imagenet_subject([labels[several][-1]]), open_shifted("imagenet-real", tmp_path / "val"))
    assert result.count == 2
    assert result.top1 == 50


def test_files_of_real_are_numbered_from_1_to_50000(tmp_path):
    from sequencer2d.evaluation.shifted import _timm_file

    labels = json.loads(_timm_file("imagenet_real_labels.json"))
    folder = tmp_path / "n01440764"
    folder.mkdir()
    for name in ("00000001_n01440764", "00050000"):
        Image.new("RGB", (4, 4)).save(folder / f"ILSVRC2012_val_{name}.png")
    assert open_shifted("imagenet-real", tmp_path).labels == (tuple(labels[0]), tuple(labels[-1]))
    for name in ("ILSVRC2012_val_00000000", "ILSVRC2012_val_00050001", "x_00000001"):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
        with pytest.raises(DataError, match=f"{name}.png is no ImageNet validation image"):
            open_shifted("imagenet-real", tmp_path)
        (folder / f"{name}.png").unlink()
    for name in ("x", "1000"):
        with pytest.raises(DataError, match=f"its folders are named 0 to 999, found {name}"):
            open_shifted("imagenet-v2", wnid_folder(tmp_path / f"v2-{name}", ["999", name]))


def test_accuracy_is_relative_to_the_native_size_or_unknown():
    sizes, top1 = np.array([16, 32, 64]), np.array([0.2, 0.8, 0.4])
    assert ResolutionResult("x", 32, sizes, top1, 5).relative == pytest.approx([0.25, 1, 0.5])
    assert np.isnan(ResolutionResult("x", 32, sizes, np.array([0.2, 0, 0.4]), 5).relative).all()


def test_the_stride_is_what_a_model_says_of_itself():
    class Patches(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.patch_embed = nn.Module()
            self.patch_embed.patch_size = size

    assert [model_stride(model) for model in (small().model, Patches((16, 16)), Patches(8), nn.Flatten())] == [
        8, 16, 8, 32,
    ]  # fmt: skip
    assert model_stride(load_subject("random:resnet18", num_classes=2).model) == 32


def test_sizes_are_asked_for_once_and_positive(colors):
    counted = []
    result = resolution_sweep(colors_subject(), colors, (64, 16, 64), limit=4, batch_size=3, progress=counted.append)
    assert (result.sizes.tolist(), result.native, result.count, sum(counted)) == ([16, 32, 64], 32, 4, 12)
    with pytest.raises(ConfigError, match="size 0: expected positive"):
        resolution_sweep(colors_subject(), colors, (0,))


def test_a_model_of_other_classes_is_asked_about_the_shared_ones(tmp_path):
    root = wnid_folder(tmp_path / "a", ["n01498041", "n01531178"])
    names = ("n01531178", "n01498041", "n00000001")
    subject = Subject("tiny", Always(3, [0]), DataConfig(image_size=32), names)
    shifted = open_shifted("imagenet-a", root)
    with pytest.raises(ConfigError, match="lacks 198 of the 200"):
        evaluate_shifted(subject, shifted)
    assert evaluate_shifted(subject, shifted, common_only=True).top1 == 50


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


def test_classes_that_do_not_match(colors):
    subject = Subject("x", MeanColor(), DataConfig(), ("red", "green", "yellow"))
    with pytest.raises(ConfigError, match="1 of the 3 classes of the images are not among the 3 of x: blue"):
        match_classes(subject, colors)
    assert match_classes(subject, colors, common_only=True).tolist() == [-1, 1, 0]
    unnamed = Subject("x", MeanColor(), DataConfig(), ("class 0", "class 1"), names_known=False)
    with pytest.raises(ConfigError, match="2 outputs without names, the images have 3"):
        match_classes(unnamed, colors)


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


def test_a_sweep_asks_about_the_first_class_too_and_leaves_out_others(colors):
    """The model always says red, its output 0; it does not know blue. Of red and green images half are right."""
    subject = Subject("red", Always(3, [0]), DataConfig(image_size=32), ("red", "green", "yellow"))
    result = resolution_sweep(subject, colors, (48,), common_only=True, batch_size=3)
    assert (result.sizes.tolist(), result.top1.tolist()) == ([32, 48], [0.5, 0.5])


def test_a_feature_map_without_a_stride_has_one_of_32():
    model = nn.Flatten()
    model.feature_info = [{"num_chs": 8, "reduction": 4}, {"num_chs": 8}]
    assert model_stride(model) == 32
    model.feature_info = [{"reduction": 64}, {"reduction": 16}]
    assert model_stride(model) == 16


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
