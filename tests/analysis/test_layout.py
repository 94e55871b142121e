"""Layouts of token models: the grid of an image that is not square, tokens in front of it, and what is no grid."""

import pytest
import torch
from torch import Tensor, nn

from sequencer2d.analysis.layout import Layout, find_layout
from sequencer2d.errors import ConfigError, InputError


class Patches(nn.Module):
    """Patches of 8 pixels as tokens (B, prefix + H·W, 4); `size` is the only one it takes, if it is given."""

    def __init__(self, prefix: int = 0, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.proj, self.tokens, self.prefix, self.size = nn.Conv2d(3, 4, 8, 8), nn.Identity(), prefix, size

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            raise ValueError("another size")
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        return self.tokens(torch.cat([tokens[:, :1].expand(-1, self.prefix, -1), tokens], dim=1))


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize(("size", "grid"), [((16, 48), (2, 6)), ((48, 16), (6, 2)), ((32, 32), (4, 4))])
def test_a_grid_of_tokens_has_the_proportions_of_the_image(
    prefix: int, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    layout = find_layout(Patches(prefix), "tokens", size)
    assert layout == Layout("tokens", *grid, prefix, "probed")
    output = Patches(prefix)(torch.arange(3.0 * size[0] * size[1]).reshape(1, 3, *size))
    assert layout.to_grid(output).shape == (1, *grid, 4)
    assert torch.equal(layout.to_grid(output).flatten(1, 2), output[:, prefix:])


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_model_of_one_size_that_says_its_prefix_is_taken_at_its_word(prefix: int) -> None:
    model = Patches(prefix, size=(16, 48))
    with pytest.raises(ConfigError, match=r"cannot be found: the model takes no other image size .* State it"):
        find_layout(model, "tokens", (16, 48))
    model.num_prefix_tokens = prefix  # type: ignore[assignment]
    layout = find_layout(model, "tokens", (16, 48))
    assert layout == Layout("tokens", 2, 6, prefix, "declared")
    assert (type(layout.height), type(layout.width)) == (int, int)
    with pytest.raises(ConfigError, match=r"NHWC was stated for 'tokens', whose output .* says otherwise"):
        find_layout(model, "tokens", (16, 48), stated="NHWC")


def test_a_declared_prefix_that_leaves_no_grid_is_refused() -> None:
    model = Patches(1, size=(16, 48))
    model.num_prefix_tokens = 2  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"layout tokens does not fit the output \(1, 13, 4\) .* 16×48 pixels"):
        find_layout(model, "tokens", (16, 48))


def test_a_map_is_not_taken_for_tokens_however_it_is_stated() -> None:
    model = Patches(size=(16, 48))
    with pytest.raises(ConfigError, match=r"layout tokens does not fit the output \(1, 4, 2, 6\)"):
        find_layout(model, "proj", (16, 48), stated="tokens")
    assert find_layout(model, "proj", (16, 48), stated="NCHW") == Layout("NCHW", 2, 6, 0, "stated")


class Columns(nn.Module):
    """A token for each column of the image, whatever its height: a sequence, but no grid."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.mean(dim=1)
        return self.tokens(torch.cat([rows.mean(dim=1), rows.mean(dim=2), rows.mean(dim=2)], dim=1)[..., None])


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        ((16, 16), "puts out 48 tokens, 80 and 64 for images of twice the height or width: no grid"),
        ((8, 16), "puts out a grid of 16 tokens, which is none for an image of 8×16"),
    ],
)
def test_tokens_that_are_no_grid_are_refused(size: tuple[int, int], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        find_layout(Columns(), "tokens", size)


def test_another_layout_than_the_three_is_refused() -> None:
    with pytest.raises(ConfigError, match="layout 'NCWH'; choose one of NCHW, NHWC, tokens"):
        find_layout(Patches(), "tokens", (16, 16), stated="NCWH")
