"""When gradients are exchanged in backward, and what DDP says: `python -m tests.training.exchange FILE`.

Two forked processes take steps with a model as it is, compiled by blocks and as a whole. The first process writes to
FILE, a list for each form: "computed" where compiled code of backward has run or, uncompiled, the gradient of a block's
last layer has arrived, and "exchanged" where a bucket of gradients is sent. Warnings go to standard error.
"""

import functools
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from sequencer2d import create_model
from sequencer2d.environment import launch
from sequencer2d.models.compiled_training import compile_for_training
from sequencer2d.training.distributed import Processes
from tests.training.run_from_json import forked

FORMS = ("", "blocks", "whole")


class AsCudnnReturnsIt(torch.autograd.Function):
    """The identity, whose gradient has the strides that cuDNN gives a convolution of one pixel in channels last."""

    @staticmethod
    def forward(ctx, weight):
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad):
        channels = grad.shape[1]
        return grad.contiguous().as_strided(grad.shape, (channels, 1, channels, channels))


class PixelConv(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, AsCudnnReturnsIt.apply(self.weight), self.bias)


def events(form: str, here: Processes) -> list[str]:
    torch.manual_seed(0)
    model = create_model(
        "sequencer2d_n", num_classes=10, dims=(16, 32, 32, 32), hidden_dims=(4, 8, 8, 8), depths=(1, 1, 1, 1)
    ).train()
    nn.init.normal_(model.head.fc.weight, std=0.5)
    for stage in model.stages[2:]:
        stage.downsample.down.__class__ = PixelConv
    found: list[str] = []

    def noted(graph, inputs):
        def run(*arguments):
            output = graph(*arguments)
            found.append("computed")
            return output

        return make_boxed_func(run)

    backend = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=noted)
    original, torch.compile = torch.compile, functools.partial(torch.compile, backend=backend)
    if form:
        compile_for_training(model, form)
    else:
        for stage in model.stages:
            last = stage.blocks[0].mlp_channels.fc2.bias
            last.register_hook(lambda grad: found.append("computed"))
    wrapped = here.wrap(model, bucket_cap_mb=0.02)

    def sent(state, bucket):
        found.append("exchanged")
        return allreduce_hook(state, bucket)

    generator = torch.Generator().manual_seed(here.rank)
    for step in range(3):
        if step == 2:  # only then: DDP checks strides where there is no hook
            wrapped.register_comm_hook(None, sent)
        found.clear()
        images = torch.randn(2, 3, 28, 28, generator=generator).contiguous(memory_format=torch.channels_last)
        wrapped(images).square().sum().backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride()
            parameter.grad = None
    torch.compile = original
    torch.compiler.reset()
    return list(found)


def run(path: Path) -> int:
    torch.set_num_threads(1)
    rank = launch().rank
    dist.init_process_group("gloo")
    dist._DEFAULT_FIRST_BUCKET_BYTES = 1024
    here = Processes(rank=rank, local_rank=rank, world_size=2, device=torch.device("cpu"))
    found = {form: events(form, here) for form in FORMS}
    dist.destroy_process_group()
    if here.main:
        path.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(forked(2, lambda: run(Path(sys.argv[1]))))
