"""A memory budget keeps less for backward, and the gradients stay those of the network that gave the loss."""

import functools

import pytest
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import config as inductor_config
from torch._inductor import cpp_builder
from torch._inductor.compile_fx import compile_fx

from sequencer2d.errors import ConfigError, Interrupted
from sequencer2d.models import create_model
from sequencer2d.training.budget import memory_budget
from sequencer2d.training.loop import train
from tests.training.conftest import logged

OVERRIDES = {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (2, 1)}


def inductor_without_code(graph, inputs, **_):
    """Inductor's passes and partition; the two graphs then run as they are, and nothing is generated."""
    return compile_fx(graph, inputs, inner_compile=lambda module, *_, **__: make_boxed_func(module.forward))


def kept_by(run) -> tuple[object, int]:
    """What `run` returns, and how many numbers were kept for backward in it."""
    sizes: list[int] = []

    def pack(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        return run(), sum(sizes)


def gradients(share: float) -> Tensor:
    """Of a model with stochastic depth and a head that is not zero, on the same images with the same draws."""
    torch.manual_seed(0)
    model = create_model("sequencer2d_n", num_classes=10, img_size=8, drop_path_rate=0.5, **OVERRIDES).train()
    nn.init.normal_(model.get_submodule("head.fc").weight, std=0.5)
    images = torch.randn(32, 3, 8, 8)
    compiled = torch.compile(model, backend=inductor_without_code)
    with memory_budget(share):
        loss = nn.functional.cross_entropy(compiled(images), torch.arange(32) % 10)
        loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_gradients_are_those_without_a_budget_stochastic_depth_included(share):
    expected, all_of_it = kept_by(lambda: gradients(1.0))
    found, kept = kept_by(lambda: gradients(share))
    assert kept < all_of_it
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_run_applies_its_budget_and_puts_the_setting_back(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=inductor_without_code))

    def run(name: str, share: float, **fields):
        with pytest.raises(Interrupted):
            train(tiny(name, run__compile=True, run__memory_budget=share, **{"run__max_steps": 2, **fields}))
        return logged(tiny(name).run.output)

    whole, all_of_it = kept_by(lambda: run("whole", 1.0))
    lean, kept = kept_by(lambda: run("lean", 0.1))
    assert kept < all_of_it
    for expected, found in zip(whole, lean, strict=True):
        assert (found["loss"], found["grad_norm"]) == pytest.approx((expected["loss"], expected["grad_norm"]), rel=1e-5)
    assert functorch_config.activation_memory_budget == 1.0
    assert inductor_config.joint_custom_post_pass is None
    again, kept_again = kept_by(lambda: run("again", 1.0))  # not with the code of the run before
    assert (again, kept_again) == (whole, all_of_it)
    assert len(run("whole", 0.1, run__resume=True, run__max_steps=3)) == 3


def test_compiling_on_a_cpu_is_said_before_it_takes_its_time(tiny, monkeypatch, capfd):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=inductor_without_code))
    with pytest.raises(Interrupted):
        train(tiny(run__compile=True, run__max_steps=1, run__progress="lines"))
    lines = capfd.readouterr().err.splitlines()
    said = next(number for number, line in enumerate(lines) if "compiling for the CPU" in line)
    assert "run.compile=false" in lines[said]
    assert said < next(number for number, line in enumerate(lines) if line.startswith("step 1/"))


def test_compiling_on_a_cpu_without_a_compiler_is_one_line(tiny):
    cpp_builder.cpp_compiler_search.cache_clear()
    try:
        # Not by monkeypatch: it would leave the setting deleted, for all tests that follow.
        with (
            inductor_config.patch({"cpp.cxx": ("a-compiler-that-is-not-there",)}),
            pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*run\.compile=false"),
        ):
            train(tiny(run__compile=True))
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()
