"""optimize() returns a faster copy that computes the same; here on a CPU, on a GPU where there is one."""

import copy
import re

import pytest
import torch
from timm.models.sequencer import Sequencer2d
from torch import nn
from torch._inductor.utils import run_and_get_code

import sequencer2d
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models.features import Sequencer2DFeatures
from sequencer2d.models.inference import to_inference_form
from sequencer2d.models.optimizing import Optimized
from sequencer2d.nn.inference import InPlaceBlock, PackedRNN2D
from tests.models.small import randomize, small_model
from tests.models.test_fusing import SMALL, assert_same_function, images

OPTIONS = [
    {},
    {"cell": "gru"},
    {"cell": "rnn", "bidirectional": False},
    {"axes": "vertical"},
    {"fusion": "add"},
    {"in_chans": 1},
]


def eager(model, **options):
    return sequencer2d.optimize(model, compile=False, **options)


def in_place(model):
    """What `optimize` runs in 16 bits on CUDA, of a copy in float64 and without compiler."""
    converted = copy.deepcopy(model).double().eval().requires_grad_(False)
    if isinstance(model, Sequencer2d):
        sequencer2d.fuse(converted)
    return Optimized(to_inference_form(converted, in_place=True), torch.float64, compile=False, graph=False)


def count(kind, model):
    return sum(isinstance(module, kind) for module in model.modules())


def assert_in_place(model, blocks, *sizes):
    """`blocks` blocks add in place, and in float64 the outputs are the model's, whatever has been run before."""
    fast, reference = in_place(model), copy.deepcopy(model).double()
    assert count(InPlaceBlock, fast) == blocks
    for seed, size in enumerate((*sizes, *sizes)):
        x = images(*size, seed=seed)[:, : getattr(model, "in_chans", 3)].double()
        given = x.clone()
        with torch.no_grad():
            torch.testing.assert_close(fast(x), reference(x), rtol=1e-10, atol=1e-12)
        assert torch.equal(x, given)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_logits_in_float32_are_the_models(options):
    model = small_model(**options)
    x = images(28, 42)[:, : options.get("in_chans", 3)]
    assert_same_function(model, eager(model), x)


@pytest.mark.parametrize("pad", ["zeros", "crop"])
def test_sizes_that_do_not_fit_the_stride_and_any_batch(pad):
    model = small_model(pad=pad)
    fast = eager(model)
    for batch, size in ((1, (30, 45)), (2, (28, 28)), (2, (57, 29))):
        assert_same_function(model, fast, images(*size)[:batch])


def test_vanilla_models():
    model = sequencer2d.create_model("vsequencer_s", depths=(1, 1, 1, 1), num_classes=5)
    model = randomize(model).eval()
    assert_same_function(model, eager(model), images(28, 28))


def test_the_given_model_is_left_alone():
    model = small_model().train()
    before = copy.deepcopy(model.state_dict())
    modules = [type(module) for module in model.modules()]
    fast = eager(model, dtype=torch.bfloat16)
    assert [type(module) for module in model.modules()] == modules
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.head.fc.bias.add_(1.0)
    x = images(28, 28)
    assert (fast(x) - model.eval()(x)).abs().max() > 0.5, "the copy must not follow the model"


def test_no_gradients_and_eval_mode():
    model = small_model(drop_path_rate=0.5).train()
    fast = eager(model)
    logits = fast(images(28, 28).requires_grad_())
    assert not logits.requires_grad
    assert torch.equal(logits, fast(images(28, 28)))
    assert not fast.model.training


def test_dtype_is_of_weights_and_output_whatever_the_images():
    fast = eager(small_model(), dtype=torch.bfloat16)
    assert {value.dtype for value in fast.state_dict().values()} == {torch.bfloat16}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert fast(images(28, 28).to(dtype)).dtype == torch.bfloat16
    assert eager(small_model())(images(28, 28)).dtype == torch.float32


def test_timms_models_are_fused_on_the_way():
    model = randomize(Sequencer2d(**SMALL)).eval()
    fast = eager(model)
    assert any(isinstance(module, PackedRNN2D) for module in fast.modules())
    assert any(isinstance(module, nn.LSTM) for module in model.modules())
    assert not any(isinstance(module, nn.Conv2d) for module in fast.modules()), "stem and downsampling are products"
    assert_same_function(model, fast, images(28, 42))
    assert_same_function(model, fast, images(33, 45))


@pytest.mark.parametrize(
    "options, blocks",
    [
        *((options, 5) for options in OPTIONS),
        ({"axes": "flatten"}, 5),
        ({"position_embedding": True, "img_size": 28}, 5),
        ({"patch_sizes": (7, 1, 1, 2)}, 5),
        ({"stem_overlap": 3}, 4),  # such a stem stays a convolution, which takes no biases of the first stage
        ({"fusion": "none"}, 0),
    ],
    ids=str,
)
def test_blocks_add_in_place(options, blocks):
    model = small_model(**options)
    if options.get("position_embedding"):
        nn.init.normal_(model.pos_embed.weight)
    assert_in_place(model, blocks, (28, 42), (30, 45))


@pytest.mark.parametrize(
    "options, blocks",
    [({}, 2), ({"union": "add"}, 2), ({"union": "vertical"}, 2), ({"with_fc": False}, 0), ({"act_layer": nn.SiLU}, 0)],
    ids=str,
)
def test_timms_blocks_add_in_place(options, blocks):
    assert_in_place(randomize(Sequencer2d(**SMALL | options)).eval(), blocks, (28, 42))


def test_a_stage_after_an_unknown_layer_is_left_as_it_is():
    """Here the stem ends in a norm, which biases cannot pass: only the second stage changes."""
    assert_in_place(randomize(Sequencer2d(**SMALL, stem_norm=True)).eval(), 1, (28, 42))


class Reordered(Sequencer2d):
    """Whose author may well read a stage's input again."""


def test_models_that_inherit_from_known_ones_keep_their_first_stage():
    model = randomize(Reordered(**SMALL)).eval()
    assert_in_place(model, 1, (28, 42))


def test_blocks_without_biases_and_after_layers_without_them_add_in_place():
    model = small_model()
    model.stem.proj.bias = model.stages[1].downsample.down.bias = None
    model.stages[1].blocks[1].rnn_tokens.fc.bias = model.stages[2].blocks[0].mlp_channels.fc2.bias = None
    assert_in_place(model, 5, (28, 28))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_maps_are_kept_while_later_blocks_add_in_place(layout):
    model = Sequencer2DFeatures(small_model(patch_sizes=(7, 2, 1, 1)), output_fmt=layout)
    assert_in_place(model, 5, (28, 42))
    fast = in_place(model)
    maps = fast(images(28, 28))
    before = [value.clone() for value in maps]
    fast(images(28, 28, seed=2))
    assert all(torch.equal(value, kept) for value, kept in zip(maps, before, strict=True))


@pytest.mark.parametrize("shared", ["block", "mlp_channels", "rnn_tokens", "norm2", "fc1.weight"])
def test_blocks_that_share_layers_keep_their_function(shared):
    model = small_model()
    first, second = model.stages[1].blocks[:2]
    if shared == "block":
        model.stages[1].blocks[1] = first
    elif shared == "fc1.weight":
        second.mlp_channels.fc1.weight = first.mlp_channels.fc1.weight
    else:
        setattr(second, shared, getattr(first, shared))
    assert_in_place(model, 5, (28, 28))


def test_norms_that_do_more_stay_as_they_are():
    class Doubling(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) * 2

    def with_norm(change):
        model = small_model()
        block = model.stages[0].blocks[0]
        change(block)
        return model

    def replace(block):
        block.norm1 = Doubling(*block.norm1.normalized_shape)

    assert_in_place(with_norm(replace), 4, (28, 28))
    hook = lambda module, arguments, output: output * 2  # noqa: E731
    assert_in_place(with_norm(lambda block: block.norm2.register_forward_hook(hook)), 4, (28, 28))


def test_in_place_is_for_sixteen_bits_on_cuda():
    for dtype in (torch.float32, torch.bfloat16):
        assert count(InPlaceBlock, eager(small_model(), dtype=dtype)) == 0


def test_the_compiler_copies_nothing_before_it_adds_in_place():
    """All sums of a stage go into one buffer, into which the product before the stage was written."""
    model = small_model(depths=(1, 2), dims=(16, 32), hidden_dims=(4, 8), patch_sizes=(7, 2)).double()
    x = images(28, 28).double()
    with torch.inference_mode():
        compiled = torch.compile(in_place(model).model, fullgraph=True)
        logits, (code, *others) = run_and_get_code(compiled, x)
        torch.testing.assert_close(logits, model(x), rtol=1e-10, atol=1e-12)
    assert not others
    sums = re.findall(r"add_linear_\.default\((?:reinterpret_tensor\()?(buf\d+)", code)
    first, second, _ = re.findall(r"extern_kernels\.addmm\(.*out=(buf\d+)\)", code)
    assert sums == [first] * 2 + [second] * 4


def test_models_without_a_mixer_are_refused():
    with pytest.raises(InputError, match="no recurrent token mixer"):
        sequencer2d.optimize(nn.Linear(3, 3))


def test_graphs_need_a_cuda_device():
    with pytest.raises(ConfigError, match="graph=True needs a CUDA device; the model is on cpu"):
        sequencer2d.optimize(small_model(), graph=True)


def test_compiled_logits_are_the_models():
    """Of any number of models: the compiler's limit of recompilations holds for each alone."""
    with torch._dynamo.config.patch(recompile_limit=1):
        for classes in (3, 5):
            model = small_model(depths=(1,), dims=(16,), hidden_dims=(4,), patch_sizes=(7,), num_classes=classes)
            assert_same_function(model, sequencer2d.optimize(model), images(28, 28))


@pytest.mark.gpu
def test_on_a_gpu_every_shape_has_its_graph_and_outputs_are_kept():
    model = small_model().cuda()
    fast = sequencer2d.optimize(model, dtype=torch.float32, compile=False)
    inputs = [images(28, 28, seed=seed).cuda() for seed in (1, 2)] + [images(28, 42).cuda()]
    outputs = [fast(x) for x in inputs]
    with torch.no_grad():
        for x, output in zip(inputs, outputs, strict=True):
            torch.testing.assert_close(output, model(x), atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_gpu_sums_in_place_are_as_close_as_others(dtype):
    """Root mean square errors against float64, compiled and replayed as a graph; the slack is a rounding of a logit."""
    sizes = {"depths": (2, 3), "dims": (64, 128), "hidden_dims": (16, 32), "patch_sizes": (7, 2)}
    model = small_model(**sizes, num_classes=100).cuda()
    parameters = copy.deepcopy(model.state_dict())
    fast = sequencer2d.optimize(model, dtype=dtype)
    assert count(InPlaceBlock, fast) == 5
    other = to_inference_form(copy.deepcopy(model).requires_grad_(False)).to(dtype)
    slow = Optimized(other, dtype, compile=True, graph=False)
    reference = copy.deepcopy(model).double()
    reference.set_implementation("reference")
    for seed in (1, 2):
        x = images(56, 70, seed=seed).cuda()
        with torch.no_grad():
            expected = reference(x.double())
        errors = [(form(x).double() - expected).square().mean().sqrt() for form in (fast, slow)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * expected.std()
    assert all(torch.equal(value, parameters[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "dtype"),
        (torch.zeros(1, 1, 28, 28), "channels"),
        (torch.zeros(1, 3, 8, 28), "too small"),
        (torch.zeros(3, 28, 28), "4 axes"),
    ],
)
def test_refuses_the_images_that_the_model_refuses(images, message):
    model = sequencer2d.create_model("sequencer2d_n", depths=(1, 1, 1, 1))
    for refusing in (model, sequencer2d.optimize(model, compile=False)):
        with pytest.raises(InputError, match=message):
            refusing(images)
