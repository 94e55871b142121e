"""In eager PyTorch a block is one autograd node, which computes what its layers compute, or its layers run."""

import concurrent.futures
import contextlib
import copy
import cProfile

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.overrides import BaseTorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sequencer2d.errors import ImplementationError
from sequencer2d.models import fuse
from sequencer2d.nn import blocks
from sequencer2d.nn.blocks import SequencerBlock
from sequencer2d.ops import block_weights, devices
from sequencer2d.ops.precision import tf32

prepared = pytest.importorskip("sequencer2d.ops.kernels.prepared", reason="Triton is not installed")
# Of a block without gradients, with some room for other versions. timm's block of ConvNeXt is 12 and 94.
MOST_OPERATORS, MOST_CALLS = 20, 190

DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])


@pytest.fixture(scope="module")
def device():
    pytest.importorskip("triton", reason="Triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        devices._ask.cache_clear()
        yield
        devices._ask.cache_clear()
    else:
        yield


def make_block(device, dtype=torch.float32, **options):
    torch.manual_seed(0)
    block = SequencerBlock(32, 16, **({"implementation": "triton"} | options)).to(device, dtype)
    for norm in (block.norm1, block.norm2):  # otherwise scales are 1, and a mistake in them does not show
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias, 0, 0.3)
    return block


def tokens(device, dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(3, 4, 5, 32, device=device, dtype=dtype)


def is_one_node(out):
    return out.grad_fn is not None and type(out.grad_fn).__name__ == "BlockBackward"


@contextlib.contextmanager
def layer_by_layer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "run_as_one_node", lambda *_: None)
        yield


def solve(block, x, autocast=None):
    """The output and all gradients, that of the tokens first."""
    x = x.clone().requires_grad_()
    torch.manual_seed(2)
    with torch.autocast(x.device.type, autocast) if autocast else contextlib.nullcontext():
        out = block(x)
    grad = torch.linspace(-1, 1, out.numel(), device=x.device).view(out.shape).to(out.dtype)
    return [out, *torch.autograd.grad(out, [x, *block.parameters()], grad)]


def error(value, exact):
    return ((value.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("options", [{}, {"axes": "flatten"}, {"cell": "rnn", "bidirectional": False}], ids=str)
@pytest.mark.parametrize("dtype, autocast", [*((d, None) for d in DTYPES), *((torch.float32, d) for d in DTYPES[1:])])
def test_the_node_is_as_exact_as_the_layers(device, dtype, autocast, options):
    block, x = make_block(device, dtype, **options), tokens(device, autocast or dtype)
    exact = copy.deepcopy(block).double()
    exact.rnn_tokens.set_implementation("reference")
    expected = solve(exact, x.double())
    found = solve(block, x, autocast)
    with layer_by_layer():
        plain = solve(block, x, autocast)
    assert is_one_node(found[0])
    assert not is_one_node(plain[0])
    rounding = torch.finfo(autocast or dtype).eps
    names = ["out", "x", *(name for name, _ in block.named_parameters())]
    for name, ours, theirs, value in zip(names, found, plain, expected, strict=True):
        assert ours.dtype is theirs.dtype, name
        assert ours.shape == theirs.shape, name
        assert error(ours, value) <= 2 * error(theirs, value) + 0.5 * rounding, name


def test_stochastic_depth_draws_what_the_layers_draw(device):
    block, x = make_block(device, drop_path=0.5).train(), tokens(device)
    found = solve(block, x)
    with layer_by_layer():
        plain = solve(block, x)
    assert is_one_node(found[0])
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sequencer2d_s"])
def test_a_fused_model_of_timms_runs_as_one_node_a_block(device, name):
    torch.manual_seed(0)
    model = timm.create_model(name, layers=(1, 1, 1, 1), embed_dims=(32, 32, 32, 32), hidden_sizes=(16,) * 4)
    model = model.to(device).train()
    nn.init.normal_(model.head.fc.weight, 0, 0.02)
    images = torch.randn(2, 3, 28, 28, device=device)
    state = list(model.state_dict())
    fuse(model, implementation="triton")
    block = model.stages[0].blocks[0]
    assert isinstance(block, timm.models.sequencer.Sequencer2dBlock)
    assert is_one_node(block(torch.randn(2, 4, 4, 32, device=device)))
    assert list(model.state_dict()) == state
    # A convolution in TF32 would round the last bit of its input to a thousandth.
    with tf32(False):
        logits = model(images)
    with tf32(False), FlopCounterMode(display=False):  # it makes the layers run
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)


def test_weights_that_change_behind_autograd_are_seen(device):
    """`Tensor.data` has a version of its own: nothing may be kept from one call to the next."""
    block, x = make_block(device), tokens(device)
    block(x)
    for parameter in block.parameters():
        parameter.data.mul_(0.5)
    changed = block(x)
    with layer_by_layer():
        torch.testing.assert_close(changed, block(x), rtol=1e-4, atol=1e-5)


def test_gradients_share_no_values(device):
    block, x = make_block(device), tokens(device)
    block(x).sum().backward()
    before = [parameter.grad.clone() for parameter in block.parameters()]
    for parameter, value in zip(block.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, value)
        parameter.grad.add_(1)


@pytest.mark.parametrize("frozen", ["rnn_tokens.rnn_v.bias_hh_l0", "norm1.weight", "mlp_channels.fc2.weight", "x"])
def test_what_needs_no_gradient_gets_none(device, frozen):
    block, x = make_block(device), tokens(device).requires_grad_(frozen != "x")
    if frozen != "x":
        block.get_parameter(frozen).requires_grad_(False)
    out = block(x)
    assert is_one_node(out)
    out.sum().backward()
    assert (x.grad is None) == (frozen == "x")
    assert all((parameter.grad is None) == (name == frozen) for name, parameter in block.named_parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_output_is_the_same(device, context):
    block, x = make_block(device), tokens(device)
    with context():
        out = block(x)
    assert torch.equal(out, block(x).detach())


@pytest.mark.parametrize("autocast", [None, torch.float16], ids=str)
def test_the_node_keeps_less_for_backward_than_the_layers(device, autocast):
    block, x = make_block(device), tokens(device, autocast or torch.float32).requires_grad_()
    kept = {}

    def count(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    def activations():
        kept.clear()
        computing = torch.autocast(device.type, autocast) if autocast else contextlib.nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), computing:
            out = block(x)
        # Weights and their copies are not among them.
        return sum(value.nbytes for value in kept.values() if value.shape[0] in (*x.shape[:1], 60)), out

    node, out = activations()
    assert is_one_node(out)
    with layer_by_layer():
        layers, _ = activations()
    assert node < 0.9 * layers


def test_activations_can_be_computed_again(device):
    block, x = make_block(device, drop_path=0.5).train(), tokens(device)
    expected = solve(block, x)
    x = x.clone().requires_grad_()
    torch.manual_seed(2)
    out = checkpoint(block, x, use_reentrant=False)
    grad = torch.linspace(-1, 1, out.numel(), device=x.device).view(out.shape)
    found = [out, *torch.autograd.grad(out, [x, *block.parameters()], grad)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_backward_can_run_twice(device):
    block, x = make_block(device), tokens(device).requires_grad_()
    out = block(x)
    first = torch.autograd.grad(out.sum(), [x, *block.parameters()], retain_graph=True)
    second = torch.autograd.grad(out.sum(), [x, *block.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_second_derivatives_are_refused(device):
    x = tokens(device).requires_grad_()
    with pytest.raises(ImplementationError, match="no second derivative"):
        torch.autograd.grad(make_block(device)(x).sum(), [x], create_graph=True)


def test_tokens_need_not_be_contiguous(device):
    block, x = make_block(device), tokens(device)
    assert torch.equal(block(x.transpose(1, 2).contiguous().transpose(1, 2)), block(x))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def hook_the_norm(block):
    block.norm1.register_forward_hook(lambda module, inputs, output: 2 * output)


def hook_before_the_mixer(block):
    block.rnn_tokens.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def hook_a_recurrent_layer(block):
    block.rnn_tokens.rnn_v.register_forward_hook(lambda *_: None)


def replace_a_forward(block):
    block.mlp_channels.fc1.forward = lambda x: (
        2 * nn.functional.linear(x, block.mlp_channels.fc1.weight, block.mlp_channels.fc1.bias)
    )


def replace_the_activation(block):
    block.mlp_channels.act = nn.ReLU()


def approximate_the_activation(block):
    block.mlp_channels.act = nn.GELU("tanh")


def parametrize_a_weight(block):
    nn.utils.parametrize.register_parametrization(block.mlp_channels.fc2, "weight", Doubled())


def norm_a_weight(block):
    parametrizations.weight_norm(block.rnn_tokens.rnn_h, "weight_hh_l0")


def prune_a_weight(block):
    prune.l1_unstructured(block.rnn_tokens.rnn_h, "weight_ih_l0", 0.5)


def drop_values(block):
    block.mlp_channels.drop.p = 0.999


def take_off_a_bias(block):
    block.mlp_channels.fc2.bias = None


def replace_the_norm(block):
    block.norm2 = nn.Identity()


def recompute_gates(block):
    block.rnn_tokens.gates = "recomputed"


CHANGES = [
    hook_the_norm, hook_before_the_mixer, hook_a_recurrent_layer, replace_a_forward, replace_the_activation,
    approximate_the_activation, parametrize_a_weight, norm_a_weight, prune_a_weight, drop_values, take_off_a_bias,
    replace_the_norm, recompute_gates,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_layers_that_are_more_than_their_class_says_run_one_by_one(device, change):
    block, x = make_block(device).train(), tokens(device)
    assert is_one_node(block(x))
    change(block)
    torch.manual_seed(2)
    out = block(x)
    assert not is_one_node(out)
    with layer_by_layer():
        torch.manual_seed(2)
        assert torch.equal(out, block(x))


def test_hooks_on_all_modules_are_called(device):
    block, seen = make_block(device), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    with handle if hasattr(handle, "__enter__") else contextlib.nullcontext():
        block(tokens(device))
    handle.remove()
    assert nn.LayerNorm in seen


@pytest.mark.parametrize("options", [{"cell": "gru"}, {"fusion": "add"}, {"implementation": "reference"}], ids=str)
def test_other_blocks_run_layer_by_layer(device, options):
    assert not is_one_node(make_block(device, **options)(tokens(device)))


def test_tokens_of_another_dtype_than_the_computations_run_layer_by_layer(device):
    block, x = make_block(device), tokens(device)
    with torch.autocast(device.type, torch.float16):
        assert not is_one_node(block(x))
        assert is_one_node(block(x.half()))


@pytest.fixture
def rooms(monkeypatch):
    kept = block_weights._Rooms()
    monkeypatch.setattr(block_weights, "_ROOMS", kept)
    return kept.by_key


def expected(block, x):
    with torch.no_grad(), layer_by_layer():
        return block(x)


def test_calls_without_gradients_share_memory_and_nothing_else(device, rooms):
    first, second, wider = make_block(device), make_block(device), SequencerBlock(32, 16, 2.0).to(device)
    wider.rnn_tokens.set_implementation("triton")
    with torch.no_grad():
        for value in second.parameters():
            value.add_(0.1)
    x = tokens(device)
    rights = [expected(block, x) for block in (first, second, wider)]
    with torch.inference_mode():
        outputs = [first(x)]
    with torch.no_grad():
        outputs += [second(x), wider(x)]
        assert len(rooms) == 2
        again = [first(x), second(x)]
        with torch.inference_mode():
            again.append(wider(x))
        for found, right in zip([*outputs, *again], rights * 2, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        second.mlp_channels.fc1.weight.data.mul_(0.5)  # behind autograd's back
        second.rnn_tokens.rnn_v.weight_hh_l0.data.mul_(0.5)
        torch.testing.assert_close(second(x), expected(second, x), rtol=1e-4, atol=1e-5)


def test_a_copy_that_backward_reads_is_not_overwritten(device, rooms):
    block, other, x = make_block(device), make_block(device), tokens(device)
    with torch.no_grad():
        other(x)
        for value in other.parameters():
            value.zero_()
    out = block(x)
    with torch.no_grad():
        other(x)
    found = torch.autograd.grad(out.square().sum(), list(block.parameters()))
    right = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    assert all(torch.equal(*pair) for pair in zip(found, right, strict=True))
    assert len(rooms) == 1


def test_threads_copy_to_memory_of_their_own(device, rooms):
    with torch.no_grad(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        block, x = make_block(device), tokens(device)
        block(x)
        pool.submit(lambda: make_block(device)(tokens(device).detach())).result()
        assert pool.submit(lambda: len(block_weights._ROOMS.by_key)).result() == 0, "gradients are on there"
        pool.submit(torch.no_grad()(lambda: block(x))).result()
        theirs = pool.submit(lambda: next(iter(block_weights._ROOMS.by_key.values()))).result()
    assert theirs.packed[0].data_ptr() != next(iter(rooms.values())).packed[0].data_ptr()


@pytest.mark.gpu
def test_on_a_gpu_streams_and_captures_have_memory_of_their_own(rooms):
    block, other, x = make_block("cuda"), make_block("cuda"), tokens("cuda")
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.5)
        rights = [expected(block, x), expected(other, x)]
        block(x)
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            found = block(x)
        torch.cuda.current_stream().wait_stream(side)
        assert len(rooms) == 2
        torch.testing.assert_close(found, rights[0], rtol=1e-4, atol=1e-5)
        with torch.cuda.graph(graph):
            captured = block(x)
        assert len(rooms) == 2
        for _ in range(3):
            graph.replay()
            torch.testing.assert_close(other(x), rights[1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(captured, rights[0], rtol=1e-4, atol=1e-5)


def test_memory_for_copies_is_bounded(device, rooms, monkeypatch):
    monkeypatch.setattr(block_weights, "MAX_ROOMS", 2)
    with torch.no_grad():
        for ratio in (1.0, 2.0, 3.0, 1.0):
            block = SequencerBlock(32, 16, ratio, implementation="triton").to(device)
            torch.testing.assert_close(block(tokens(device)), expected(block, tokens(device)), rtol=1e-4, atol=1e-5)
    assert len(rooms) == 2


def test_the_host_does_little_for_a_block_without_gradients(device, rooms, monkeypatch):
    """Operators that PyTorch is called for, and calls of Python functions; launches do nothing here."""
    monkeypatch.setattr(prepared, "repeat", lambda *_: True)
    block, x = make_block(device, torch.float32).eval(), tokens(device).half()
    with torch.no_grad(), torch.autocast(device.type, torch.float16):
        block(x)
        with profile(activities=[ProfilerActivity.CPU]) as operators:
            block(x)
        calls = cProfile.Profile()
        calls.runcall(block, x)
    assert sum(event.cpu_parent is None for event in operators.events()) <= MOST_OPERATORS
    assert sum(row.callcount for row in calls.getstats()) <= MOST_CALLS


def test_a_default_device_changes_nothing(device):
    block, x = make_block(device), tokens(device)
    with torch.device(device):
        assert is_one_node(block(x))
        with BaseTorchFunctionMode():
            assert not is_one_node(block(x))


def test_modes_and_transforms_see_the_layers(device):
    block, x = make_block(device), tokens(device)
    with FlopCounterMode(display=False) as counter:
        block(x)
    assert counter.get_total_flops() > 0
    exported = torch.export.export(block, (x,))
    assert not any("Block" in str(node.target) for node in exported.graph.nodes)
