import random
import resource

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import RandAugment, rand_augment_ops

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.transforms import PadCrop, TorchResizedCrop, _allow_black, _posterize, train_transform
from sequencer2d.errors import ConfigError
from sequencer2d.seeds import seed_image
from tests.data.images import picture


@pytest.mark.parametrize("crop", ["random-resized", "pad"])
@pytest.mark.parametrize("size", [24, (16, 32)])
def test_training_gives_pixels_of_the_size_asked_for(crop: str, size: int | tuple[int, int]) -> None:
    config = DataConfig(image_size=size, crop=crop)  # type: ignore[arg-type]
    transform = train_transform(config)
    for seed in range(30):
        pixels = transform(picture(seed, (40, 30)))
        assert (pixels.shape, pixels.dtype) == ((*config.size, 3), np.uint8)


def test_randomness_comes_from_the_seeded_generators_only() -> None:
    transform = train_transform(DataConfig(image_size=24))
    image = picture(0, (40, 30))

    def draw(index: int) -> np.ndarray:
        seed_image(1, 2, index)
        return transform(image)

    first = [draw(index) for index in range(20)]
    assert all(np.array_equal(a, draw(index)) for index, a in enumerate(first))
    assert len({a.tobytes() for a in first}) > 15


def test_pad_crop_shifts_and_fills_with_black() -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    crop = PadCrop((8, 8), 4, "bilinear")
    random.seed(0)
    white = [np.asarray(crop(image))[..., 0] > 0 for _ in range(200)]
    sizes = {(int(mask.any(1).sum()), int(mask.any(0).sum())) for mask in white}
    assert sizes == {(height, width) for height in range(4, 9) for width in range(4, 9)}
    assert all(mask.sum() == mask.any(1).sum() * mask.any(0).sum() for mask in white)


def test_pad_crop_without_padding_keeps_the_image() -> None:
    config = DataConfig(image_size=(10, 12), crop="pad", crop_padding=0, hflip=0, auto_augment="")
    image = picture(1, (12, 10))
    assert np.array_equal(train_transform(config)(image), np.asarray(image))
    assert train_transform(config)(picture(1, (31, 17))).shape == (10, 12, 3)


def test_evaluation_crops_the_middle_share() -> None:
    image = picture(2, (32, 32))
    whole = eval_transform(DataConfig(image_size=32, crop_pct=1.0))
    assert np.array_equal(whole(image), np.asarray(image))
    middle = eval_transform(DataConfig(image_size=28, crop_pct=0.875))
    assert np.array_equal(middle(image), np.asarray(image)[2:30, 2:30])
    assert eval_transform(DataConfig(image_size=(20, 28)))(picture(3, (50, 40))).shape == (20, 28, 3)


@pytest.mark.parametrize("magnitude", range(11))
def test_no_policy_step_fails_at_any_magnitude(magnitude: int) -> None:
    for increasing in ("Increasing", ""):
        graded = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
        names = [name + increasing for name in graded]
        names += ["AutoContrast", "Equalize", "Invert", "Rotate", "SolarizeAdd", "ShearX", "TranslateXRel"]
        ops = rand_augment_ops(magnitude=magnitude, prob=1.0, transforms=names)
        _allow_black(ops)
        for op in ops:
            assert op(picture(4)).size == (12, 10)


def test_unknown_policy_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.auto_augment is 'rand-x9'"):
        train_transform(DataConfig(auto_augment="rand-x9"))
    with pytest.raises(ConfigError, match=r"data\.auto_augment is 'strong'"):
        train_transform(DataConfig(auto_augment="strong"))


def test_other_policies_of_timm_work_too() -> None:
    for policy in ("augmix-m5-w2", "original", "3a", ""):
        config = DataConfig(image_size=16, auto_augment=policy, color_jitter=0.4)
        assert train_transform(config)(picture(5)).shape == (16, 16, 3)


def test_posterizing_to_no_bits_gives_black_as_in_the_pillow_of_the_papers_runs():
    transform = train_transform(DataConfig(image_size=8, auto_augment="rand-m10-inc1"))
    policy = next(step for step in transform.steps if isinstance(step, RandAugment))
    operation = next(op for op in policy.ops if op.name == "PosterizeIncreasing")
    operation.prob = 1.0
    assert not np.asarray(operation(Image.new("RGB", (8, 8), (255, 200, 100)))).any()


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 9_000), (60_000, 2)])
@pytest.mark.parametrize("interpolation", ["bicubic", "nearest", "bilinear", "lanczos"])
def test_strips_are_cropped_before_they_are_resized(size: tuple[int, int], interpolation: str) -> None:
    levels = np.linspace(0, 255, max(size)).astype(np.uint8)
    image = Image.fromarray(np.tile(levels, (min(size), 1)))
    image = (image if size[0] > size[1] else image.transpose(Image.Transpose.ROTATE_90)).convert("RGB")
    config = DataConfig(image_size=64, eval_interpolation=interpolation)  # type: ignore[arg-type]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = eval_transform(config)(image)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert pixels.shape == (64, 64, 3)
    middle = np.asarray(image)[size[1] // 2, size[0] // 2]
    assert np.abs(pixels.astype(int) - middle).max() <= 2
    assert grown < 200_000, "KiB"


@pytest.mark.parametrize("target", [64, (48, 80)])
@pytest.mark.parametrize("size", [(300, 40), (57, 400), (200, 200)])
def test_the_crop_alone_is_the_middle_of_the_resized_image(
    target: int | tuple[int, int], size: tuple[int, int]
) -> None:
    image = picture(1, size)
    steps = create_transform(target, is_training=False, interpolation="bicubic", crop_pct=0.875).transforms
    timms = np.asarray(steps[1](steps[0](image)))
    transform = eval_transform(DataConfig(image_size=target))
    assert np.array_equal(transform(image), timms)
    transform.steps[0].most_resized = 0  # type: ignore[attr-defined]
    difference = np.abs(transform(image).astype(int) - timms)
    assert difference.mean() < 1.2  # from rounding the resized sides: a part of a pixel of a smooth picture


@pytest.mark.parametrize("eval_crop", ["squash", "border"])
@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (40, 30)])
def test_strips_are_squashed_or_padded(eval_crop: str, size: tuple[int, int]) -> None:
    config = DataConfig(image_size=64, eval_crop=eval_crop, crop_pct=1.0)  # type: ignore[arg-type]
    pixels = eval_transform(config)(Image.new("RGB", size, (9, 9, 9)))
    assert pixels.shape == (64, 64, 3)
    assert (pixels == 9).all(-1).any()


def test_no_share_of_the_crop_makes_a_large_image() -> None:
    config = DataConfig(image_size=16, crop_pct=1e-6)
    assert eval_transform(config)(picture(1, (40, 30))).shape == (16, 16, 3)


@pytest.mark.parametrize("crop", ["random-resized", "pad"])
def test_training_takes_strips(crop: str) -> None:
    transform = train_transform(DataConfig(image_size=16, crop=crop))  # type: ignore[arg-type]
    for size in ((1, 20_000), (20_000, 1), (1, 1)):
        for seed in range(5):
            random.seed(seed)
            assert transform(Image.new("RGB", size, (9, 9, 9))).shape == (16, 16, 3)


@pytest.mark.parametrize("bits", range(-1, 10))
def test_posterize_keeps_the_upper_bits(bits: int) -> None:
    image = picture(3)
    pixels, kept = np.asarray(image), min(max(bits, 0), 8)
    wanted = pixels & (0xFF << (8 - kept) & 0xFF)
    assert np.array_equal(np.asarray(_posterize(image, bits, fillcolor=(0, 0, 0))), wanted)


@pytest.mark.parametrize("increasing", ["", "Increasing"])
def test_policies_posterize_so(increasing: str) -> None:
    ops = rand_augment_ops(magnitude=10 if increasing else 0, prob=1.0, transforms=[f"Posterize{increasing}"])
    _allow_black(ops)
    assert not np.asarray(ops[0](picture(3))).any(), "timm asks for 0 bits"


@pytest.mark.parametrize("interpolation, most", [("bilinear", 1), ("bicubic", 2), ("random", 2)])
@pytest.mark.parametrize("size", [(37, 53), (96, 72), (320, 250)])
def test_torch_resizes_the_crops_of_timm_as_pillow_does(interpolation: str, most: int, size: tuple[int, int]) -> None:
    """Columns first, then rows: newer releases of Pillow choose the order, so each pass is a call of its own."""
    config = DataConfig(
        image_size=(56, 48),
        interpolation=interpolation,  # type: ignore[arg-type]
        resampler="torch",
        auto_augment="",
        hflip=0,
    )
    transform = train_transform(config)
    (timms,) = (step.crop for step in transform.steps if isinstance(step, TorchResizedCrop))  # type: ignore[attr-defined]
    modes = {"bilinear": (2,), "bicubic": (3,), "random": (2, 3)}[interpolation]
    differences = []
    for index in range(40):
        for image in (noise(size), picture(index, size)):
            seed_image(3, 0, index)
            pixels = transform(image).astype(int)
            seed_image(3, 0, index)
            top, left, height, width = timms.get_params(image, timms.scale, timms.ratio)
            mode = Image.Resampling(random.choice(modes) if len(modes) > 1 else modes[0])
            part = image.crop((left, top, left + width, top + height))
            wanted = np.asarray(part.resize((48, height), mode).resize((48, 56), mode)).astype(int)
            differences.append(np.abs(pixels - wanted))
    assert max(difference.max() for difference in differences) <= most
    assert np.mean([(difference > 0).mean() for difference in differences]) < 0.01


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def test_the_draws_of_the_policy_do_not_depend_on_what_resizes() -> None:
    states = []
    for resampler in ("pillow", "torch"):
        transform = train_transform(DataConfig(image_size=24, resampler=resampler))  # type: ignore[arg-type]
        seed_image(3, 0, 0)
        transform(picture(0, (40, 30)))
        states.append((random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()))
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"crop": "pad"}, "data.crop=random-resized"), ({"interpolation": "lanczos"}, "data.interpolation")],
)
def test_what_torch_cannot_resize_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        train_transform(DataConfig(resampler="torch", **changes))  # type: ignore[arg-type]
