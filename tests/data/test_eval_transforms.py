import numpy as np
import pytest
from timm.data import create_transform

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from tests.data.images import picture

IMAGES = [(40, 30), (30, 40), (32, 32), (33, 32), (31, 77), (200, 9), (9, 200), (7, 5), (64, 64), (101, 67)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.875, 0.5])
@pytest.mark.parametrize("size", [32, 33, (24, 40), (40, 24)])
@pytest.mark.parametrize("mode", ["center", "border", "squash"])
def test_evaluation_gives_the_pixels_of_timms_transform(mode, size, crop_pct, interpolation):
    config = DataConfig(image_size=size, crop_pct=crop_pct, eval_crop=mode, eval_interpolation=interpolation)
    ours = eval_transform(config)
    timms = create_transform(
        config.size, is_training=False, interpolation=interpolation, crop_pct=crop_pct, crop_mode=mode,
        mean=config.mean, std=config.std, use_prefetcher=True,
    )  # fmt: skip
    for seed, shape in enumerate(IMAGES):
        image = picture(seed, shape)
        expected = timms(image).permute(1, 2, 0).numpy()
        found = ours(image)
        assert (found.shape, found.dtype) == ((*config.size, 3), np.uint8)
        np.testing.assert_array_equal(found, expected, err_msg=f"{shape}")
