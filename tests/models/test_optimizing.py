"""optimize() returns a faster copy that computes the same; here on a CPU, on a GPU where there is one."""

import copy

import pytest
import torch
from timm.models.sequencer import Sequencer2d
from torch import nn

import sequencer2d
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.nn.frozen import PackedRNN2D
from tests.models.small import randomise, small_model
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


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_logits_in_float32_are_the_models(options):
    model = small_model(**options)
    x = images(28, 42)[:, : options.get("in_chans", 3)]
    assert_same_function(model, eager(model), x)


def test_sizes_that_need_padding_and_any_batch():
    model = small_model()
    fast = eager(model)
    for batch, size in ((1, (30, 45)), (2, (28, 28)), (2, (57, 29))):
        assert_same_function(model, fast, images(*size)[:batch])


def test_vanilla_models():
    model = sequencer2d.create_model("vsequencer_s", depths=(1, 1, 1, 1), num_classes=5)
    model = randomise(model).eval()
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
    model = randomise(Sequencer2d(**SMALL)).eval()
    fast = eager(model)
    assert any(isinstance(module, PackedRNN2D) for module in fast.modules())
    assert any(isinstance(module, nn.LSTM) for module in model.modules())
    assert not any(isinstance(module, nn.Conv2d) for module in fast.modules()), "stem and downsampling are products"
    assert_same_function(model, fast, images(28, 42))
    assert_same_function(model, fast, images(33, 45))


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
