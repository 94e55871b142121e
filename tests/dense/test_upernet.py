"""UPerNet: its shapes, its size, and that it learns on the maps of a pyramid."""

import pytest
import torch
import torch.nn.functional as F

from sequencer2d import create_model
from sequencer2d.dense import Segmenter, SemanticFPN, UPerNet
from sequencer2d.errors import ConfigError, InputError

CHANNELS, STRIDES = (8, 8, 16, 24), (4, 8, 16, 32)


def maps(height: int = 64, width: int = 96) -> list[torch.Tensor]:
    return [torch.randn(2, c, -(-height // s), -(-width // s)) for c, s in zip(CHANNELS, STRIDES, strict=True)]


def test_logits_have_the_size_of_the_finest_map() -> None:
    model = UPerNet(CHANNELS, STRIDES, 5, channels=16)
    for height, width in ((64, 96), (70, 33)):
        assert model(maps(height, width)).shape == (2, 5, -(-height // 4), -(-width // 4))


def test_parameters_are_those_of_mmsegmentations_head_for_swin_tiny() -> None:
    with torch.device("meta"):
        model = UPerNet((96, 192, 384, 768), STRIDES, 150)

    def conv(inputs: int, kernel: int) -> int:
        return inputs * 512 * kernel**2 + 2 * 512

    pooling = 4 * conv(768, 1) + conv(768 + 4 * 512, 3)
    pyramid = conv(96, 1) + conv(192, 1) + conv(384, 1) + 3 * conv(512, 3)
    assert sum(p.numel() for p in model.parameters()) == pooling + pyramid + conv(4 * 512, 3) + 512 * 150 + 150


def test_logits_are_those_of_the_definition() -> None:
    """The coarsest map and its averages over grids of 1, 2, 3 and 6 sides, joined; each added to the next finer map."""
    model = UPerNet(CHANNELS, STRIDES, 5, channels=4).double().eval()
    inputs = [x.double() for x in maps(192, 224)]
    coarsest, pooling = inputs[-1], model.pooling
    averages = [
        F.interpolate(part[1](F.adaptive_avg_pool2d(coarsest, side)), coarsest.shape[2:], mode="bilinear")
        for part, side in zip(pooling.pooled, (1, 2, 3, 6), strict=True)
    ]
    above = pooling.joined(torch.cat([coarsest, *averages], 1))
    levels = [above]
    for i in (2, 1, 0):
        above = model.lateral[i](inputs[i]) + F.interpolate(above, inputs[i].shape[2:], mode="bilinear")
        levels.insert(0, model.output[i](above))
    joined = torch.cat([F.interpolate(x, inputs[0].shape[2:], mode="bilinear") for x in levels], 1)
    torch.testing.assert_close(model(inputs), model.classifier(model.joined(joined)))
    assert model.dropout.p == 0.1


def test_channels_may_be_a_list() -> None:
    model = UPerNet(list(CHANNELS), list(STRIDES), 5, channels=4).eval()
    assert model(maps()).shape == (2, 5, 16, 24)
    assert SemanticFPN(list(CHANNELS), list(STRIDES), 5).eval()(maps()).shape == (2, 5, 16, 24)


def test_every_level_matters() -> None:
    model = UPerNet(CHANNELS, STRIDES, 5, channels=16).eval()
    inputs = [x.requires_grad_() for x in maps()]
    model(inputs).square().sum().backward()
    assert all(bool(x.grad.abs().sum() > 0) for x in inputs)


def test_it_learns_on_a_pyramid() -> None:
    torch.manual_seed(0)
    small = {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (4, 2)}
    backbone = create_model("sequencer2d_n", features_only=True, pyramid=STRIDES, **small)
    model = Segmenter(backbone, 3, UPerNet)
    labels = torch.randint(3, (2, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    images = labels[:, None].expand(-1, 3, -1, -1) - 1.0 + 0.1 * torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 maps and 4 strides"):
        UPerNet((8,), STRIDES, 5)
    with pytest.raises(ConfigError, match="num_classes=0"):
        UPerNet(CHANNELS, STRIDES, 0)
    with pytest.raises(InputError, match="made for maps of 8, 8, 16, 24 channels"):
        UPerNet(CHANNELS, STRIDES, 5, channels=16)(maps()[:3])


def test_one_image_is_refused_in_training_only() -> None:
    model, one = UPerNet(CHANNELS, STRIDES, 5, channels=16), [x[:1] for x in maps()]
    with pytest.raises(InputError, match=r"two images or more .* raise data\.batch_size"):
        model.train()(one)
    assert model.eval()(one).shape[:2] == (1, 5)
