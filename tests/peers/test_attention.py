"""T2T-ViT's and PVT's mixers against their formulas, written as loops over tokens, and positions at other sizes."""

import math
from typing import Any

import pytest
import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import InputError
from sequencer2d.peers.pvt import ReducedAttention
from sequencer2d.peers.t2t_vit import SPLITS, T2TViT, TokenAttention, TokensToToken, grid_of, sinusoids
from tests.peers.formulas import assert_follows_formula, in_play
from tests.peers.small import images, small_peer


def attend(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], scale: float) -> list[Tensor]:
    """For each query the values, weighted by the softmax of its products with the keys."""
    mixed = []
    for query in queries:
        shares = torch.softmax(torch.stack([scale * (query @ key) for key in keys]), dim=0)
        mixed.append(sum((share * value for share, value in zip(shares, values, strict=True)), torch.zeros(())))
    return mixed


def token_attention_by_tokens(layer: TokenAttention, x_NC: Tensor) -> Tensor:
    """T2T: one head of 64; scores are scaled by the root of the input's width, and the skip is the value."""
    triples = [layer.qkv.weight @ token for token in x_NC]
    queries, keys, values = ([triple[64 * i : 64 * i + 64] for triple in triples] for i in range(3))
    mixed = attend(queries, keys, values, 1 / math.sqrt(x_NC.shape[1]))
    return torch.stack(
        [value + layer.proj.weight @ token + layer.proj.bias for value, token in zip(values, mixed, strict=True)]
    )


def attention_by_tokens(layer: Attention, x_NC: Tensor) -> Tensor:
    """The ViT's attention: heads of equal width."""
    width = x_NC.shape[1]
    triples = [layer.qkv.weight @ token for token in x_NC]
    queries, keys, values = ([triple[width * i : width * (i + 1)] for triple in triples] for i in range(3))
    return _heads(layer, queries, keys, values, layer.num_heads)


def reduced_attention_by_tokens(layer: ReducedAttention, x_NC: Tensor, grid: tuple[int, int]) -> Tensor:
    """PVT: keys and values are of tokens each of which a square of reduction × reduction tokens makes."""
    rows, columns = grid
    width, step = x_NC.shape[1], layer.reduction
    coarse = list(x_NC)
    if step > 1:
        coarse = []
        for row in range(rows // step):
            for column in range(columns // step):
                token = layer.sr.bias
                for i in range(step):
                    for j in range(step):
                        source = x_NC[(row * step + i) * columns + column * step + j]
                        token = token + layer.sr.weight[:, :, i, j] @ source
                coarse.append(F.layer_norm(token, (width,), layer.norm.weight, layer.norm.bias, eps=1e-5))
    queries = [layer.q.weight @ token + layer.q.bias for token in x_NC]
    pairs = [layer.kv.weight @ token + layer.kv.bias for token in coarse]
    keys, values = [pair[:width] for pair in pairs], [pair[width:] for pair in pairs]
    return _heads(layer, queries, keys, values, layer.heads)


def _heads(layer: Any, queries: list[Tensor], keys: list[Tensor], values: list[Tensor], heads: int) -> Tensor:
    size = len(queries[0]) // heads
    parts = [
        attend(
            *([token[h * size : (h + 1) * size] for token in tokens] for tokens in (queries, keys, values)), size**-0.5
        )
        for h in range(heads)
    ]
    joined = [torch.cat(token) for token in zip(*parts, strict=True)]
    return torch.stack([layer.proj.weight @ token + layer.proj.bias for token in joined])


@pytest.mark.parametrize(
    "layer, reference, shape, arguments",
    [
        (TokenAttention(9), token_attention_by_tokens, (5, 9), ()),
        (Attention(12, num_heads=3), attention_by_tokens, (4, 12), ()),
        (ReducedAttention(8, 2, 2), reduced_attention_by_tokens, (12, 8), ((2, 6),)),
        (ReducedAttention(8, 2, 2), reduced_attention_by_tokens, (15, 8), ((3, 5),)),
        (ReducedAttention(8, 4, 1), reduced_attention_by_tokens, (7, 8), ((2, 3),)),
    ],
    ids=["token transformer", "T2T-ViT's block", "PVT", "PVT, uneven grid", "PVT, last stage"],
)
def test_attention_and_its_gradients_are_those_of_the_formula(
    layer: nn.Module, reference: Any, shape: tuple[int, int], arguments: tuple[Any, ...]
) -> None:
    assert_follows_formula(layer, reference, shape, arguments)


def test_the_attention_under_test_is_that_of_t2t_vits_blocks() -> None:
    assert type(small_peer("t2t_vit_t_19").blocks[0].attn) is Attention


def split_by_pixels(x_CHW: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The values in each position of a sliding window, channels first, zero outside the image."""
    channels, height, width = x_CHW.shape
    tokens = []
    for top in range(-padding, height + padding - kernel + 1, stride):
        for left in range(-padding, width + padding - kernel + 1, stride):
            values = []
            for channel in range(channels):
                for row in range(top, top + kernel):
                    for column in range(left, left + kernel):
                        inside = 0 <= row < height and 0 <= column < width
                        values.append(x_CHW[channel, row, column] if inside else x_CHW.new_zeros(()))
            tokens.append(torch.stack(values))
    return torch.stack(tokens)


def test_images_are_split_and_merged_as_described() -> None:
    module = in_play(TokensToToken(1, 6))
    x = torch.randn(1, 1, 10, 17, dtype=torch.float64)
    image = x[0]
    for (kernel, stride, padding), transformer in zip(
        ((7, 4, 2), (3, 2, 1)), (module.attention1, module.attention2), strict=True
    ):
        rows, columns = (len(range(0, side + 2 * padding - kernel + 1, stride)) for side in image.shape[1:])
        tokens = transformer(split_by_pixels(image, kernel, stride, padding)[None])[0]
        image = torch.stack([tokens[i * columns : (i + 1) * columns] for i in range(rows)]).permute(2, 0, 1)
    tokens = split_by_pixels(image, 3, 2, 1) @ module.project.weight.T + module.project.bias
    torch.testing.assert_close(module(x)[0], tokens)
    assert len(tokens) == math.prod(grid_of(10, 17))


def test_the_paper_size_has_14_by_14_tokens() -> None:
    sizes, side = [], 224
    for split in SPLITS:
        side, _ = split.grid(side, side)
        sizes.append(side)
    assert sizes == [56, 28, 14]


def test_positions_are_sinusoids() -> None:
    table = sinusoids(5, 6)[0]
    for position in range(5):
        for i in range(6):
            angle = position / 10000 ** (2 * (i // 2) / 6)
            assert table[position, i].item() == pytest.approx(
                math.sin(angle) if i % 2 == 0 else math.cos(angle), abs=1e-7
            )


def positions_of(model: Any) -> dict[str, tuple[tuple[int, int], int, str]]:
    """Of the small models: parameter → its grid, class tokens, interpolation."""
    if isinstance(model, T2TViT):
        return {"pos_embed": ((3, 2), 1, "bicubic")}
    return {
        "pos_embed1": ((12, 8), 0, "bilinear"),
        "pos_embed2": ((6, 4), 0, "bilinear"),
        "pos_embed3": ((3, 2), 1, "bilinear"),
    }


@pytest.mark.parametrize("name", ["t2t_vit_t_19", "pvt_small"])
def test_positions_are_interpolated_for_another_grid(name: str) -> None:
    model = small_peer(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = torch.randn(1, 3, 64, 80)
    unfit = model(x)
    model.set_input_size((64, 80))
    torch.testing.assert_close(model(x), unfit)
    assert model.pretrained_cfg["input_size"] == (3, 64, 80)
    scale = {"pos_embed": 16, "pos_embed1": 4, "pos_embed2": 8, "pos_embed3": 16}
    for key, (grid, prefix, mode) in positions_of(model).items():
        old, new = before[key], getattr(model, key)
        assert torch.equal(new[:, :prefix], old[:, :prefix])
        plane = old[:, prefix:].reshape(1, *grid, -1).permute(0, 3, 1, 2)
        size = (64 // scale[key], 80 // scale[key])
        plane = F.interpolate(plane, size=size, mode=mode, align_corners=False)
        torch.testing.assert_close(new[:, prefix:], plane.permute(0, 2, 3, 1).reshape(1, -1, old.shape[2]))
        assert new.requires_grad == (name == "pvt_small")
    for key, tensor in model.state_dict().items():
        if key not in positions_of(model):
            assert torch.equal(tensor, before[key])


def test_pvt_takes_sizes_that_are_no_multiples_of_its_stride() -> None:
    model = small_peer("pvt_small")
    assert model(torch.randn(1, 3, 53, 38)).shape == (1, 5)
    with pytest.raises(InputError, match="15×64 pixels are too small; this model needs 16×16"):
        model(torch.randn(1, 3, 15, 64))


def test_pvts_maps_for_segmentation_have_no_class_token_in_their_making() -> None:
    model, x = small_peer("pvt_small"), images("pvt_small")
    extractor = small_peer("pvt_small")
    extractor.prune_intermediate_layers((0, 1, 2), prune_norm=True)
    assert not [key for key in extractor.state_dict() if key.startswith(("cls_token", "head", "norm"))]
    maps = extractor.forward_intermediates(x, intermediates_only=True)
    full = model.forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(maps[:2], full[:2], strict=True))
    tokens = model.patch_embed3(full[1]).flatten(1, 2) + model.pos_embed3[:, 1:]
    expected = model.block3[0](tokens, (3, 2)).unflatten(1, (3, 2)).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps[2], expected)


@pytest.mark.parametrize("name", ["pvt_small", "timm:poolformer_s12"])
def test_backbones_of_segmentation_have_strides_4_to_32(name: str) -> None:
    from sequencer2d import create_model

    backbone = create_model(name, features_only=True, out_indices=(0, 1, 2, 3)).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 128, 96))
    assert [(128 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(stride, stride) for stride in (4, 8, 16, 32)]
    assert [m.shape[1] for m in maps] == [64, 128, 320, 512]
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
