"""The effective receptive field: exact for a convolution stack, and never read in the wrong layout."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sequencer2d.analysis.erf import ReceptiveField, measure, method_images, receptive_fields
from sequencer2d.analysis.erf_methods import METHODS
from sequencer2d.analysis.figures import receptive_field_grid
from sequencer2d.analysis.layout import Layout, find_layout, find_layouts
from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.evaluation.pixels import normalized, read_images
from sequencer2d.evaluation.subject import Subject, load_subject
from sequencer2d.models import create_model
from tests.models.small import small_model


def as_subject(model, size):
    return Subject("m", model.eval(), DataConfig(image_size=size), ("a",))


def convolutions(kernels, layout):
    layers = []
    for index, (kernel, stride) in enumerate(kernels):
        layer = nn.Conv2d(3 if index == 0 else 1, 1, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        nn.init.ones_(layer.weight)
        layers.append(layer)
    if layout == "NHWC":
        layers.append(ToNHWC())
    return nn.Sequential(*layers)


class ToNHWC(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def pixels(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def theoretical_field(kernels):
    """How often each input position reaches one output position along one axis, if all weights are 1.

    Source: Luo et al., section 2.2. `kernels` holds (kernel size, stride) of each convolution, the first one first.
    """
    profile = np.ones(1)
    for kernel, stride in reversed(kernels):
        spread = np.zeros((len(profile) - 1) * stride + 1)
        spread[::stride] = profile
        profile = np.convolve(spread, np.ones(kernel))
    return profile


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kernels", [[(3, 1)], [(3, 1)] * 5, [(7, 1), (3, 1), (1, 1)], [(5, 2), (3, 1), (3, 2)]])
def test_a_convolution_stack_has_the_field_that_theory_gives(kernels, layout):
    """Weights of 1: the gradient is how many paths lead from a pixel to the middle, a product of two profiles."""
    model = convolutions(kernels, layout)
    field = receptive_fields(as_subject(model, (64, 48)), pixels(2, 64, 48), [str(len(model) - 1)])[0]
    profile = theoretical_field(kernels)
    paths = np.outer(profile, profile)
    gradient = np.sqrt(field.values)
    rows, columns = np.nonzero(gradient)
    box = gradient[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert box.shape == paths.shape
    # The same in each of the three channels, whose squares are summed.
    np.testing.assert_allclose(box, paths * np.sqrt(3), rtol=1e-5)
    stride = int(np.prod([s for _, s in kernels]))
    center = (64 // stride // 2 * stride, 48 // stride // 2 * stride)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(center[0], abs=stride)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(center[1], abs=stride)


@pytest.mark.parametrize(
    "name, kind, prefix",
    [("resnet18", "NCHW", 0), ("convnext_atto", "NCHW", 0), ("vit_tiny_patch16_224", "tokens", 1),
     ("deit_tiny_distilled_patch16_224", "tokens", 2), ("sequencer2d_n", "NHWC", 0)],
)  # fmt: skip
def test_the_layout_is_found_for_a_model(name, kind, prefix):
    subject = load_subject(f"random:{name}", num_classes=3)
    size = (56, 84) if name.startswith("sequencer") else (64, 96) if kind == "NCHW" else (224, 224)
    for layout in find_layouts(subject.model, list(_first_and_last(subject.model)), size).values():
        assert (layout.kind, layout.prefix, layout.found) == (kind, prefix, "probed")
        assert layout.height * size[1] == layout.width * size[0]


def _first_and_last(model):
    from sequencer2d.analysis.blocks import block_names

    names = block_names(model)
    return names[0], names[-1]


def test_stating_a_wrong_layout_is_refused():
    model = create_model("sequencer2d_n", num_classes=2, patch_sizes=(8, 1, 1, 1))
    with pytest.raises(ConfigError, match=r"NCHW was stated .* changes as NHWC"):
        find_layout(model, "stages.0.blocks.0", (64, 64), stated="NCHW")


class FixedSize(nn.Module):
    """Takes 16×16 only, and says nothing of itself; as many channels as rows, so that no shape gives it away."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 2, 2)

    def forward(self, x):
        assert x.shape[-2:] == (16, 16)
        return self.conv(x)


def test_a_layout_that_cannot_be_known_must_be_stated():
    with pytest.raises(ConfigError, match="State it"):
        find_layout(FixedSize(), "conv", (16, 16))
    assert find_layout(FixedSize(), "conv", (16, 16), stated="NCHW").found == "stated"


def test_a_stated_layout_that_the_shape_contradicts_is_refused():
    model = FixedSize()
    model.conv = nn.Conv2d(3, 5, 2, 2)
    with pytest.raises(ConfigError, match="does not fit"):
        find_layout(model, "conv", (16, 16), stated="NHWC")


def test_a_pooled_output_is_no_map():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(InputError, match="no map"):
        find_layout(model, "1", (16, 16))


def test_a_block_that_does_not_exist_lists_those_that_do():
    subject = load_subject("random:resnet18", num_classes=2)
    with pytest.raises(ConfigError, match=r"no block 'layer5.0'.*layer1.0, layer1.1, layer2.0"):
        receptive_fields(subject, pixels(1, 64, 64), ["layer5.0"])


def test_the_shape_of_known_fields():
    size, center = 81, (40, 40, 41, 41)
    y, x = np.mgrid[:size, :size] - 40
    round_ = measure(np.exp(-(x**2 + y**2) / 200), center)
    assert round_.arm_ratio == pytest.approx(1, abs=0.05)
    assert not round_.cruciform
    assert round_.side_50**2 == pytest.approx(np.pi * 200 * np.log(2), rel=0.03)
    cross = np.where((x == 0) | (y == 0), 1.0, 0.01)
    shape = measure(cross, center)
    assert shape.cruciform
    assert shape.arm_ratio == pytest.approx(100, rel=1e-6)
    assert shape.row_share == pytest.approx(81 / cross.sum())
    assert shape.cross_share == pytest.approx(161 / cross.sum())
    even = measure(np.ones((10, 10)), (5, 5, 6, 6))
    assert (even.area_50, even.area_90) == (0.5, 0.9)
    assert even.row_share == pytest.approx(0.1)


def test_one_mixer_alone_sees_a_cross():
    """One BiLSTM2D block reaches along its own row and column only, whatever its weights."""
    model = create_model("sequencer2d_n", num_classes=2, patch_sizes=(4, 1, 1, 1), implementation="reference")
    field = receptive_fields(as_subject(model, 48), pixels(2, 48, 48), ["stages.0.blocks.0"])[0]
    assert field.shape.cross_share == pytest.approx(1)
    assert field.shape.cruciform
    assert field.center == (24, 24, 28, 28)


@pytest.mark.parametrize("pad", ["crop", "zeros"])
def test_the_middle_token_of_an_image_that_does_not_fit_the_stride(pad):
    """41 pixels are 2 tokens of 14, or with padding 3: the second one is in the middle of both."""
    (field,) = receptive_fields(as_subject(small_model(pad=pad), 41), pixels(1, 41, 41), ["stages.3"], method="energy")
    assert (field.layout.height, field.center) == ({"crop": 2, "zeros": 3}[pad], (14, 14, 28, 28))


def test_a_field_is_the_mean_over_images_and_its_file_holds_it(tmp_path):
    subject = load_subject("random:resnet18", num_classes=2)
    images = pixels(3, 64, 64)
    together = receptive_fields(subject, images, ["layer2.0"], batch_size=2)[0]
    alone = [receptive_fields(subject, images[i : i + 1], ["layer2.0"])[0].values for i in range(3)]
    np.testing.assert_allclose(together.values, np.mean(alone, axis=0), rtol=1e-4)
    together.save(tmp_path / "field.npz")
    with np.load(tmp_path / "field.npz") as file:
        np.testing.assert_array_equal(file["values"], together.values)
        assert str(file["layout"]) == "NCHW"


def test_timms_recurrent_layers_work_in_evaluation_mode():
    import timm

    model = timm.create_model("sequencer2d_s", num_classes=2).eval()
    subject = as_subject(model, 56)
    field = receptive_fields(subject, pixels(1, 56, 56), ["stages.0.blocks.0"])[0]
    assert not model.training
    assert field.layout.kind == "NHWC"
    assert torch.isfinite(torch.from_numpy(field.values)).all()


def by_hand(model, images, method):
    """Both definitions written out image by image: the token's summed features, its gradient, and the sums over it."""
    total = np.zeros(images.shape[-2:])
    for image in images:
        x = image[None].clone().requires_grad_(True)
        grid = model(x)
        height, width = grid.shape[2:]
        row, column = (height // 2 - 1, width // 2 - 1) if method == "paper" else (height // 2, width // 2)
        grid[0, :, row, column].sum().backward()
        gradient = x.grad[0].double().numpy()
        total += np.maximum(gradient, 0).sum(axis=0) if method == "paper" else (gradient**2).sum(axis=0)
    return total if method == "paper" else total / len(images)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_its_definition(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1)).eval()
    images = pixels(5, 32, 48)
    field = receptive_fields(as_subject(model, (32, 48)), images, ["2"], method=method, batch_size=2)[0]
    expected = by_hand(model, normalized(images, as_subject(model, (32, 48))), method)
    np.testing.assert_allclose(field.values, expected, rtol=1e-4, atol=1e-12)
    assert field.center == ((12, 20, 16, 24) if method == "paper" else (16, 24, 20, 28))


def test_the_arms_of_both_methods_with_equal_weights():
    """The authors' quantity, by the authors' code, has arms of 17 in the first stage of Sequencer2D-S; ours squares the
    gradient, and its arms are about the square of theirs."""
    subject = load_subject("random:sequencer2d_s", num_classes=2)
    images = pixels(1, 224, 224)
    arms = {
        method: receptive_fields(subject, images, ["stages.0.blocks.3"], method=method)[0].shape.arm_ratio
        for method in METHODS
    }
    assert arms["paper"] == pytest.approx(17, rel=0.15)
    assert arms["energy"] == pytest.approx(arms["paper"] ** 2, rel=0.5)


def test_the_papers_maps_share_one_scale_and_ours_have_their_own():
    maps = [np.asarray([[0.0, 9.0]]), np.asarray([[99.0, 999.0]])]
    scaled = METHODS["paper"].scaled(maps)  # log10(1 + x): 0, 1 and 2, 3
    np.testing.assert_allclose(np.concatenate(scaled), [[0, 1 / 3], [2 / 3, 1]])
    own = METHODS["energy"].scaled([np.asarray([[0.0, 4.0]]), np.asarray([[1.0, 16.0]])])
    np.testing.assert_allclose(np.concatenate(own), [[0, 1], [0.25, 1]])
    (constant,) = METHODS["paper"].scaled([np.full((2, 2), 9.0)])
    assert not constant.any()


def test_the_paper_takes_34_training_augmented_images(tmp_path):
    """A random part of 8 to 100 %, a flip, brightness, contrast and saturation; ours takes the evaluation's crops."""
    generator = np.random.default_rng(0)
    for index in range(60):
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    subject = as_subject(nn.Identity(), 32)
    before = torch.get_rng_state()
    ours, theirs = (method_images(subject, [tmp_path], method) for method in ("energy", "paper"))
    assert (len(ours), len(theirs)) == (50, 34)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(theirs, method_images(subject, [tmp_path], "paper"))
    plain = read_images([tmp_path], subject.data, limit=34)
    assert not any((a == b).all() for a, b in zip(plain, theirs, strict=True))
    # Enlarged parts of noise are smoother than the whole: neighbors of them differ by less.
    steps = [np.abs(np.diff(images.astype(float), axis=2)).mean() for images in (plain, theirs)]
    assert steps[1] < 0.8 * steps[0]


def test_fields_say_by_which_method_they_are(tmp_path):
    subject = load_subject("random:resnet18", num_classes=2)
    fields = [receptive_fields(subject, pixels(1, 64, 64), ["layer2.0"], method=method) for method in METHODS]
    for (field,), method in zip(fields, METHODS, strict=True):
        assert field.row()["method"] == method
        field.save(tmp_path / "f.npz")
        with np.load(tmp_path / "f.npz") as file:
            assert str(file["method"]) == method
            np.testing.assert_array_equal(file["shown"], METHODS[method].shown(field.values))
        caption = receptive_field_grid([[field]]).get_supxlabel()
        assert f"Method {method}" in caption.replace("\n", " ")
    with pytest.raises(ConfigError, match="fields by the methods energy, paper"):
        receptive_field_grid(fields)
    with pytest.raises(ConfigError, match="no method 'grad'"):
        receptive_fields(subject, pixels(1, 64, 64), method="grad")


def test_a_row_holds_percent_and_pixels() -> None:
    y, x = np.mgrid[:8, :8] - 4
    field = ReceptiveField(
        "m", "b", METHODS["energy"], np.where((x == 0) | (y == 0), 3.0, 1.0), (4, 4, 5, 5), Layout("NHWC", 8, 8, 0), 2
    )
    row, shape = field.row(), field.shape
    total = 15 * 3 + 49
    assert row == {
        "model": "m",
        "block": "b",
        "method": "energy",
        "layout": "NHWC (probed)",
        "row, %": pytest.approx(100 * 24 / total),
        "column, %": pytest.approx(100 * 24 / total),
        "cross, %": pytest.approx(100 * 45 / total),
        "arms over rest": pytest.approx(3),
        "50 % in a square of, px": shape.side_50,
        "90 %, px": shape.side_90,
        "cross?": "yes",
    }
    assert shape.side_50**2 == pytest.approx(15 + 2)  # 47 of 94: the 15 strongest hold 45, two more reach it
    assert shape.area_50 == pytest.approx(17 / 64)
    assert all(type(value) is float for value in vars(shape).values())


def test_a_token_off_the_middle_has_its_own_row_and_column() -> None:
    values = np.zeros((6, 8))
    values[1:3, 5:7] = 1
    values[1:3, 0] = 1
    values[5, 5] = 2
    shape = measure(values, (1, 5, 3, 7))
    assert shape.row_share == pytest.approx(6 / 8)
    assert shape.column_share == pytest.approx(6 / 8)
    assert shape.cross_share == pytest.approx(1)
