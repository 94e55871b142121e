"""Inference forms of the layers: weights packed once, activations in the epilogue of their matrix product.

`sequencer2d.models.inference` makes them from trained layers. They have no gradients. All tensors are NHWC unless said
otherwise.
"""

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequencer2d.nn.embed import check_images, fit_to_stride
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import choose_implementation, rnn2d
from sequencer2d.ops.fused import split_biases
from sequencer2d.ops.linear_kernels import normed_linear_pays

# Rows of a 16-bit operand must start at multiples of 16 bytes for the fast matrix kernels.
_ALIGNMENT = 8


class PackedRNN2D(nn.Module):
    """An `RNN2D` whose scans' weights are stacked once instead of at every call: (B, H, W, C) to (B, H, W, C)."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    bias: Tensor
    bias_n: Tensor | None

    def __init__(self, mixer: RNN2D) -> None:
        super().__init__()
        for kind, weights in mixer.weights().items():
            self.register_buffer(kind, weights.detach().contiguous())
        bias, bias_n = split_biases(self.bias_ih, self.bias_hh, mixer.cell)
        self.register_buffer("bias", bias)
        self.register_buffer("bias_n", bias_n)
        self.fc, self.fusion, self.axes = mixer.fc, mixer.fusion, mixer.axes
        self.options: dict[str, Any] = {
            "scans": mixer.scans,
            "cell": mixer.cell,
            "implementation": mixer.implementation,
        }

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mix(x))

    def mix(self, x: Tensor) -> Tensor:
        """Return the input of the linear layer: (B, H, W, C) → (B, H, W, S·D), half the channels for "add"."""
        if self.is_fused(x):
            return self.mix_gates(F.linear(x, self.weight_ih.flatten(0, 1), self.bias))
        hidden = rnn2d(self._grid(x), self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, **self.options)
        return self._join(hidden, x.shape)

    def is_fused(self, x: Tensor) -> bool:
        """Whether the fused kernels run for an input (B, H, W, C), which take its product with `weight_ih`."""
        return choose_implementation(self._grid(x), self.weight_hh.shape[-1], **self.options) == "triton"

    def mix_gates(self, gates: Tensor) -> Tensor:
        """Do what `mix` does after the input product, with the fused kernels: (B, H, W, S·G·D), `bias` included."""
        scans, cell = self.options["scans"], self.options["cell"]
        # Under autocast the product's dtype is another one, and the weights in it are new.
        weight_hh = self.weight_hh.to(gates.dtype)
        bias_n = None if self.bias_n is None else self.bias_n.to(gates.dtype)
        weight_is_final = gates.dtype == self.weight_hh.dtype
        grid = self._grid(gates)
        hidden = torch.ops.sequencer2d.scan(
            grid, weight_hh, bias_n, scans, cell, save_for_backward=False, weight_is_final=weight_is_final
        )[0]
        return self._join(hidden, gates.shape)

    def _grid(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)[:, None] if self.axes == "flatten" else x

    def _join(self, hidden: Tensor, shape: torch.Size) -> Tensor:
        """Reshape hidden states to the tokens' grid (B, H, W, _) and, for "add", add the axes."""
        hidden = hidden.reshape(*shape[:3], hidden.shape[-1])
        if self.fusion == "add":
            vertical, horizontal = hidden.chunk(2, dim=-1)
            hidden = vertical + horizontal
        return hidden


class FusedMlp(nn.Module):
    """A channel MLP's linear, GELU, linear; in 16 bits on CUDA the GELU joins the first product, in its tanh form.

    The two forms of GELU differ by at most 5e-4; in fp32 and on a CPU it is the exact one.
    """

    fc1: nn.Linear
    fc2: nn.Linear

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.add_module("fc1", mlp.get_submodule("fc1"))
        self.add_module("fc2", mlp.get_submodule("fc2"))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.expand(x))

    def expand(self, x: Tensor) -> Tensor:
        """What the second product takes, after the GELU: (..., C) to (..., hidden channels)."""
        return torch.ops.sequencer2d.linear_gelu(x, self.fc1.weight, self.fc1.bias)


class InPlaceBlock(nn.Module):
    """A block whose branches add to its input in the epilogue of their second product: (B, H, W, C) to the same tensor.

    That epilogue has no room for a bias. So the layer before the first block of a stage adds the biases of all its
    blocks at once, and each norm takes off those that are still to come: `pending_bias1` and `pending_bias2`, (C,).
    After the last block there are none, and the stage's output is what it was. In 16 bits a channel whose pending
    biases are many times as large as its values loses bits of its values.

    Args:
        block: with `norm1`, `rnn_tokens`, `norm2` and `mlp_channels`; its mixer and its MLP are in their inference
            form. The biases of their last layers are not used; the norms' scales and biases become part of the layers
            behind them.
        pending_bias1, pending_bias2: these biases and all later ones of the stage, summed, before the mixer and before
            the MLP, (C,).
    """

    rnn_tokens: PackedRNN2D
    mlp_channels: FusedMlp
    pending_bias1: Tensor
    pending_bias2: Tensor

    def __init__(self, block: nn.Module, pending_bias1: Tensor, pending_bias2: Tensor) -> None:
        super().__init__()
        for name in ("rnn_tokens", "mlp_channels"):
            # Copies, as blocks may share them and each takes in norms of its own.
            self.add_module(name, copy.deepcopy(block.get_submodule(name)))
        self.register_buffer("pending_bias1", pending_bias1)
        self.register_buffer("pending_bias2", pending_bias2)
        norm1, norm2 = (cast(nn.LayerNorm, block.get_submodule(name)) for name in ("norm1", "norm2"))
        self.eps1, self.eps2 = norm1.eps, norm2.eps
        mixer, mlp = self.rnn_tokens, self.mlp_channels
        _absorb(norm1, mixer.weight_ih, mixer.bias_ih, mixer.bias)
        _absorb(norm2, mlp.fc1.weight, mlp.fc1.bias)

    def forward(self, x: Tensor) -> Tensor:
        mixer, mlp, ops = self.rnn_tokens, self.mlp_channels, torch.ops.sequencer2d
        if normed_linear_pays(x) and mixer.is_fused(x):
            weight = mixer.weight_ih.flatten(0, 1)
            mixed = mixer.mix_gates(ops.normed_linear(x, self.pending_bias1, weight, mixer.bias, self.eps1, False))
        else:
            mixed = mixer.mix(_normed(x, self.pending_bias1, self.eps1))
        ops.add_linear_(x, mixed, mixer.fc.weight)
        if normed_linear_pays(x):
            expanded = ops.normed_linear(x, self.pending_bias2, mlp.fc1.weight, mlp.fc1.bias, self.eps2, True)
        else:
            expanded = mlp.expand(_normed(x, self.pending_bias2, self.eps2))
        ops.add_linear_(x, expanded, mlp.fc2.weight)
        return x


def _normed(x: Tensor, shift: Tensor, eps: float) -> Tensor:
    """The layer norm, without scale and bias, of x − shift: (..., C) and (C,)."""
    return F.layer_norm(x - shift, shift.shape, eps=eps)


@torch.no_grad()
def _absorb(norm: nn.LayerNorm, weight: Tensor, *biases: Tensor) -> None:
    """Let a layer (weight (..., K), each of its biases (...)) do the scaling and shifting of the norm before it."""
    # In 16 bits the products' sums would be rounded at every step.
    exact = torch.promote_types(weight.dtype, torch.float32)
    for bias in biases:
        bias += (weight.to(exact) @ norm.bias.to(exact)).view(bias.shape)
    weight *= norm.weight


class PatchLinear(nn.Module):
    """A convolution whose kernel is its stride, as the matrix product it is.

    Takes an NCHW image (`from_image`; of at least `stride` pixels a side, see `fit_to_stride`) or an NHWC map; returns
    NHWC. What is left of a size that is no multiple of the patch is cut off, as the convolution does.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, from_image: bool, stride: int = 1, pad: str = "crop") -> None:
        super().__init__()
        self.patch, self.from_image, self.stride, self.pad = conv.kernel_size[0], from_image, stride, pad
        self.in_channels = conv.in_channels
        weight = conv.weight.detach()
        # Order of a patch's values: channel, row, column of an image; row, column, channel of a map.
        weight = (weight if from_image else weight.permute(0, 2, 3, 1)).flatten(1)
        self.padding = -weight.shape[1] % _ALIGNMENT
        self.register_buffer("weight", F.pad(weight, (0, self.padding)).contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        patches = self._patches(x)
        return F.linear(F.pad(patches, (0, self.padding)) if self.padding else patches, self.weight, self.bias)

    def fit(self, x: Tensor) -> Tensor:
        """The part of an input that whole patches cover, an image padded first if it is to be.

        Raises InputError for what is no image (B, in_channels, H, W) of at least `stride` pixels a side.
        """
        if self.from_image:
            check_images(x, self.in_channels, self.stride)
            x = fit_to_stride(x, self.stride, self.pad)
        if self.patch == 1:
            return x
        for axis in (2, 3) if self.from_image else (1, 2):
            x = x.narrow(axis, 0, x.shape[axis] // self.patch * self.patch)
        return x

    def _patches(self, x: Tensor) -> Tensor:
        """(B, H/patch, W/patch, values of a patch)."""
        p, x = self.patch, self.fit(x)
        if self.from_image:
            batch, channels, height, width = x.shape
            x = x.reshape(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
            return x.reshape(batch, height // p, width // p, channels * p * p)
        if p == 1:
            return x
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // p, p, width // p, p, channels).transpose(2, 3)
        return x.reshape(batch, height // p, width // p, p * p * channels)
