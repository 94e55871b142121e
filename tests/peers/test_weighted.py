"""ViP's and CycleMLP's mixers against their formulas, written as loops over pixels and channels."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from sequencer2d import create_model
from sequencer2d.errors import CheckpointError, ConfigError, InputError
from sequencer2d.models.peers import load_strictly
from sequencer2d.peers.cyclemlp import HEIGHT, WIDTH, CycleFC, CycleMixer, cycle_shift
from sequencer2d.peers.vip import PermuteMLP
from tests.peers.formulas import assert_follows_formula, in_play
from tests.peers.small import SMALL, images, small_peer


def weigh(mixer: Any, h: list[list[Tensor]], w: list[list[Tensor]], x_HWC: Tensor) -> Tensor:
    """The three branches of one image weighted and projected, pixel by pixel and channel by channel."""
    height, width, channels = x_HWC.shape
    c = [[mixer.mlp_c.weight @ x_HWC[row, column] for column in range(width)] for row in range(height)]
    total = torch.zeros(channels, dtype=x_HWC.dtype)
    for row in range(height):
        for column in range(width):
            total = total + h[row][column] + w[row][column] + c[row][column]
    fc1, fc2 = mixer.reweight.fc1, mixer.reweight.fc2
    numbers = fc2.weight @ F.gelu(fc1.weight @ (total / (height * width)) + fc1.bias) + fc2.bias
    shares = torch.stack([torch.softmax(numbers[3 * i : 3 * i + 3], dim=0) for i in range(channels)])
    rows = []
    for row in range(height):
        for column in range(width):
            mixed = shares[:, 0] * h[row][column] + shares[:, 1] * w[row][column] + shares[:, 2] * c[row][column]
            rows.append(mixer.proj.weight @ mixed + mixer.proj.bias)
    return torch.stack(rows).reshape(height, width, channels)


def permute_by_pixels(mixer: PermuteMLP, x_HWC: Tensor) -> Tensor:
    """ViP: in each segment, the numbers of a whole column (or row) make one vector for the linear layer."""
    side, _, channels = x_HWC.shape
    size = channels // mixer.segments
    h: list[list[list[Tensor]]] = [[[] for _ in range(side)] for _ in range(side)]
    w: list[list[list[Tensor]]] = [[[] for _ in range(side)] for _ in range(side)]
    for segment in range(mixer.segments):
        own = slice(segment * size, (segment + 1) * size)
        for line in range(side):
            column = mixer.mlp_h.weight @ torch.cat([x_HWC[row, line, own] for row in range(side)])
            row = mixer.mlp_w.weight @ torch.cat([x_HWC[line, column_, own] for column_ in range(side)])
            for position in range(side):
                h[position][line].append(column[position * size : (position + 1) * size])
                w[line][position].append(row[position * size : (position + 1) * size])
    joined = [[[torch.cat(parts) for parts in line] for line in branch] for branch in (h, w)]
    return weigh(mixer, *joined, x_HWC)


def cycle_by_pixels(layer: CycleFC, x_HWC: Tensor, down: bool) -> list[list[Tensor]]:
    """CycleFC: channel i is read 0, 1 or −1 tokens further on, zero outside the grid."""
    height, width, channels = x_HWC.shape
    out = []
    for row in range(height):
        line = []
        for column in range(width):
            values = []
            for channel in range(channels):
                shift = (channel + 1) % 3 - 1
                r, c = (row + shift, column) if down else (row, column + shift)
                inside = 0 <= r < height and 0 <= c < width
                values.append(x_HWC[r, c, channel] if inside else x_HWC.new_zeros(()))
            line.append(layer.weight[:, :, 0, 0] @ torch.stack(values) + layer.bias)
        out.append(line)
    return out


def cycle_mixer_by_pixels(mixer: CycleMixer, x_HWC: Tensor) -> Tensor:
    h = cycle_by_pixels(mixer.sfc_h, x_HWC, down=False)
    w = cycle_by_pixels(mixer.sfc_w, x_HWC, down=True)
    return weigh(mixer, h, w, x_HWC)


@pytest.mark.parametrize(
    "mixer, reference, shape",
    [
        (PermuteMLP(12, 4), permute_by_pixels, (4, 4, 12)),
        (PermuteMLP(8, 2), permute_by_pixels, (2, 2, 8)),
        (CycleMixer(8), cycle_mixer_by_pixels, (3, 4, 8)),
        (CycleMixer(4), cycle_mixer_by_pixels, (1, 2, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_mixers_and_their_gradients_are_those_of_the_formula(
    mixer: nn.Module, reference: Any, shape: tuple[int, ...]
) -> None:
    assert_follows_formula(mixer, reference, shape)


@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
@pytest.mark.parametrize("channels", [1, 2, 8, 9])
def test_the_shift_is_the_deformable_convolution_of_the_published_offsets(axis: int, channels: int) -> None:
    layer = in_play(CycleFC(channels, axis))
    x = torch.randn(2, 3, 5, channels, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    offsets = layer.offset.expand(2, -1, 3, 5)
    expected = deform_conv2d(x.permute(0, 3, 1, 2), offsets, layer.weight, layer.bias).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, expected)
    seed, inputs = torch.randn_like(out), (x, layer.weight, layer.bias)
    found = torch.autograd.grad((out * seed).sum(), inputs)
    right = torch.autograd.grad((expected * seed).sum(), inputs)
    for one, two in zip(found, right, strict=True):
        torch.testing.assert_close(one, two)


def test_shifts_are_those_of_the_published_buffers() -> None:
    wide, tall = CycleFC(6, WIDTH).offset.reshape(6, 2), CycleFC(6, HEIGHT).offset.reshape(6, 2)
    assert wide.tolist() == [[0, 0], [0, 1], [0, -1]] * 2
    assert torch.equal(tall, wide.flip(1))
    row = torch.arange(1.0, 5.0).reshape(1, 1, 4, 1).expand(1, 1, 4, 3)
    assert cycle_shift(row, WIDTH)[0, 0].T.tolist() == [[1, 2, 3, 4], [2, 3, 4, 0], [0, 1, 2, 3]]


def test_a_file_with_other_shifts_is_refused() -> None:
    model = small_peer("cyclemlp_b2")
    state = model.state_dict()
    load_strictly(model, state, "own.pth")
    state["network.2.0.attn.sfc_w.offset"] = state["network.2.0.attn.sfc_w.offset"] + 1
    with pytest.raises(CheckpointError, match=r"other\.pth does not fit CycleMLP: network\.2\.0\.attn\.sfc_w\.offset"):
        load_strictly(model, state, "other.pth")


def test_cyclemlp_takes_any_size() -> None:
    model = small_peer("cyclemlp_b2")
    assert model(torch.randn(1, 3, 41, 70)).shape == (1, 5)
    assert model(torch.randn(1, 3, 3, 3)).shape == (1, 5)
    with pytest.raises(InputError, match="2×9 pixels are too small"):
        model(torch.randn(1, 3, 2, 9))


def test_vip_cannot_change_size_and_says_so() -> None:
    model, x = small_peer("vip_m7"), images("vip_m7")
    model.set_input_size((28, 28))
    with pytest.raises(InputError, match=r"vip_m7 takes images of 28×28 pixels only, not 56×56: ViP's linear layers"):
        model.set_input_size(56)
    with pytest.raises(InputError, match=r"35×28 pixels; this model takes 28×28 only: .* cannot change size"):
        model(torch.randn(1, 3, 35, 28))
    with pytest.raises(ConfigError, match=r"img_size=256×256: this ViP takes 224×224 pixels only"):
        create_model("vip_s7", img_size=256)
    assert model(x).shape == (2, 5)


def test_vips_sizes_must_fit_each_other() -> None:
    sizes = SMALL["vip_m7"]
    with pytest.raises(ConfigError, match="8 channels cannot be cut into 3"):
        create_model("vip_m7", **(sizes | {"segments": (3, 3, 3), "img_size": 21, "depths": (1, 1, 1)}))
    with pytest.raises(ConfigError, match="as many as the one before, or half"):
        create_model("vip_m7", **(sizes | {"segments": (4, 1, 1)}))


def test_convolutions_between_stages_stand_where_the_grid_or_the_channels_change() -> None:
    def kernels(name: str) -> list[int | None]:
        with torch.device("meta"):
            parts = create_model(name).network
        return [None if isinstance(part, nn.Sequential) else part.proj.kernel_size[0] for part in parts]

    assert kernels("vip_s7") == [None, 2, None, None, None]
    assert kernels("vip_m7") == [None, None, 2, None, None]
    assert kernels("cyclemlp_b2") == [None, 3, None, 3, None, 3, None]
    assert small_peer("vip_m7", dims=(8, 12, 12)).network[1].proj.kernel_size == (1, 1)
