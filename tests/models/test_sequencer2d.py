import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch.export import Dim

from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models.sequencer2d import take_indices
from sequencer2d.nn.embed import pad_to_multiple
from sequencer2d.nn.rnn2d import RNN2D
from tests.models.small import small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


SIZES = [(28, 42), (14, 14), (29, 40), (33, 57)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_runs_as_its_padded_image_if_told_so(size):
    x, model = torch.randn(2, 3, *size), small_model(pad="zeros")
    logits = model(x)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, model(pad_to_multiple(x, 14)))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_by_default_the_convolutions_cut_off_what_fills_no_patch(model, size):
    x = torch.randn(2, 3, *size)
    (first,) = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    assert tuple(first.shape[2:]) == model.config.grid(*size) == (size[0] // 7, size[1] // 7)
    logits = model(x)
    last = model.forward_features(x).shape[1:3]
    assert last == model.config.grid(*size, stage=-1) == (size[0] // 14, size[1] // 14)
    assert small_model(img_size=size).pretrained_cfg["pool_size"] == last
    beyond = x.clone()
    beyond[..., size[0] // 7 * 7 :, :] = beyond[..., size[1] // 7 * 7 :] = 100
    assert torch.equal(model(beyond), logits)
    if any(side % 7 for side in size):
        assert not torch.allclose(small_model(pad="zeros")(x), logits)


def test_what_becomes_of_other_sizes_is_one_of_two():
    with pytest.raises(ConfigError, match="pad='reflect': expected one of 'crop', 'zeros'"):
        small_model(pad="reflect")


def test_too_small_an_image_says_what_is_needed(model):
    with pytest.raises(InputError, match="14×14 or more"):
        model(torch.randn(1, 3, 28, 13))


def test_forward_is_features_then_head(model):
    x = torch.randn(2, 3, 28, 42)
    features = model.forward_features(x)
    assert features.shape == (2, 2, 3, model.num_features)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((1, 2)))
    torch.testing.assert_close(model(x), model.get_classifier()(pooled))


@pytest.mark.parametrize("chans", [1, 4])
def test_any_number_of_image_channels(chans):
    assert small_model(in_chans=chans)(torch.randn(1, chans, 28, 28)).shape == (1, 5)


def test_patches_for_small_images():
    assert small_model(patch_sizes=(2, 2, 1, 1), img_size=32)(torch.randn(1, 3, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize("pad, grid", [("crop", (4, 6)), ("zeros", (6, 8))])
def test_the_grid_of_the_position_embedding_is_that_of_the_tokens(pad, grid):
    model = small_model(position_embedding=True, img_size=(30, 43), pad=pad)
    assert model.pos_embed.weight.shape == (1, *grid, 16)
    assert model.stem(torch.randn(1, 3, 30, 43)).shape == (1, *grid, 16)


def test_position_embedding_follows_the_image():
    model = small_model(position_embedding=True, img_size=(28, 42))
    assert model.pos_embed.weight.shape == (1, 4, 6, 16)
    x = torch.randn(1, 3, 56, 42)
    before = model(x)
    torch.nn.init.zeros_(model.pos_embed.weight)
    assert not torch.allclose(before, model(x))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("pad, rows", [("crop", (4, 2, 2, 2)), ("zeros", (6, 3, 3, 3))])
def test_intermediates_are_the_stages_outputs(layout, pad, rows):
    model, x, outputs = small_model(pad=pad), torch.randn(1, 3, 29, 42), []
    hooks = [stage.register_forward_hook(lambda m, i, out: outputs.append(out)) for stage in model.stages]
    features, maps = model.forward_intermediates(x, output_fmt=layout)
    for hook in hooks:
        hook.remove()
    expected = [out.permute(0, 3, 1, 2) if layout == "NCHW" else out for out in outputs]
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    assert torch.equal(features, model.forward_features(x))
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    assert tuple(taken.shape[axes[0]] for taken in maps) == rows
    for info, taken in zip(model.feature_info, maps, strict=True):
        assert taken.shape[axes[1]] * info["reduction"] == 42
        assert taken.shape[1 if layout == "NCHW" else 3] == info["num_chs"]


def test_stopping_early_runs_no_later_stage(model):
    ran = []
    hook = model.stages[2].register_forward_hook(lambda *_: ran.append(2))
    features, maps = model.forward_intermediates(torch.randn(1, 3, 28, 28), indices=[0, 1], stop_early=True, norm=True)
    hook.remove()
    assert not ran
    assert torch.equal(features.permute(0, 3, 1, 2), maps[-1])


def test_the_final_norm_on_the_last_map(model):
    x = torch.randn(1, 3, 28, 28)
    plain, normed = (
        model.forward_intermediates(x, indices=1, norm=n, intermediates_only=True)[0] for n in (False, True)
    )
    torch.testing.assert_close(model.norm(plain.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), normed)


@pytest.mark.parametrize(
    "indices, expected",
    [
        (None, (0, 1, 2, 3)),
        (2, (2, 3)),
        ((0, -1), (0, 3)),
        ([1], (1,)),
        (range(3), (0, 1, 2)),
        (torch.tensor([0, 2]), (0, 2)),
    ],
)
def test_choice_of_stages(indices, expected):
    assert take_indices(4, indices) == expected


@pytest.mark.parametrize("indices", [(1, 1), (3, -1), "12", (1.0,), 1.0, True, (0, True)])
def test_stages_that_stand_twice_or_are_no_integers(indices):
    with pytest.raises(ConfigError, match=r"a stage stands twice|expected numbers of stages"):
        take_indices(4, indices)


@pytest.mark.parametrize("indices", [5, 0, -1, (4,), (-5,), ()])
def test_stages_that_are_not_there(indices):
    with pytest.raises(ConfigError, match="stages 0 to 3"):
        take_indices(4, indices)


def test_unknown_layout(model):
    with pytest.raises(ConfigError, match="NCHW"):
        model.forward_intermediates(torch.randn(1, 3, 28, 28), output_fmt="CHWN")


def test_reset_classifier():
    model = small_model().double()
    model.reset_classifier(9, "max")
    x = torch.randn(1, 3, 28, 28, dtype=torch.float64)
    assert model(x).shape == (1, 9)
    assert not model.training
    assert not model.head.training
    assert (model.num_classes, model.config.num_classes, model.config.global_pool) == (9, 9, "max")
    model.reset_classifier(0)
    assert torch.equal(model(x), model.forward_features(x).amax((1, 2)))


def test_gradient_checkpointing_changes_no_gradient():
    x, gradients = torch.randn(2, 3, 28, 28), []
    for enable in (False, True):
        model = small_model().train()
        model.set_grad_checkpointing(enable)
        ran = []
        model.stages[1].blocks[0].norm1.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        model(x).square().sum().backward()
        assert len(ran) == 1 + enable
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_set_implementation_reaches_every_mixer():
    model = small_model()
    x = torch.randn(1, 3, 28, 28)
    before = model(x)
    model.set_implementation("reference")
    assert {m.implementation for m in model.modules() if isinstance(m, RNN2D)} == {"reference"}
    assert model.config.implementation == "reference"
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)


def test_dropout_before_the_classifier_and_in_the_mlp():
    model = small_model(drop_rate=0.5, proj_drop_rate=0.25)
    assert model.head.drop.p == 0.5
    assert model.stages[1].blocks[0].mlp_channels.drop.p == 0.25


def test_stochastic_depth_of_the_blocks():
    model = small_model(drop_path_rate=0.4)
    rates = [block.drop_path2.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("coarse", [False, True])
def test_timm_groups_every_parameter_by_depth(model, coarse):
    groups = timm.models.group_parameters(model, model.group_matcher(coarse), reverse=True)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert groups["stem.proj.weight"] == 0
    first, last = (groups[f"stages.{i}.blocks.0.norm1.weight"] for i in (0, 3))
    assert 0 < first < last == groups["norm.weight"] < groups["head.fc.weight"]


def test_timm_decays_learning_rates_by_layer(model):
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert len({group["lr_scale"] for group in groups}) >= 6


def test_timm_resolves_the_data_configuration():
    resolved = timm.data.resolve_model_data_config(small_model(img_size=(96, 128)))
    assert resolved["input_size"] == (3, 96, 128)
    assert resolved["mean"] == (0.485, 0.456, 0.406)
    assert (resolved["interpolation"], resolved["crop_pct"]) == ("bicubic", 0.875)


def test_it_runs_in_float64_and_bfloat16(model):
    x = torch.randn(1, 3, 28, 28)
    exact = small_model().double()(x.double())
    torch.testing.assert_close(model(x).double(), exact, atol=1e-5, rtol=1e-5)
    assert small_model().bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [28, 30])
def test_it_compiles_without_a_graph_break(size):
    model = small_model()
    x = torch.randn(2, 3, size, size)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("pad, least", [("crop", 28), ("zeros", 15)])
def test_stem_and_head_export_with_any_batch_and_size(pad, least):
    class WithoutMixers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small_model(position_embedding=True, pad=pad)

        def forward(self, x):
            model = self.model
            tokens = model.pos_embed(model.stem(x))
            for stage in model.stages[1:]:
                tokens = stage.downsample(tokens)
            return model.head(model.norm(tokens))

    parts = WithoutMixers().eval()
    sizes = {0: Dim("batch"), 2: Dim("height", min=least, max=4000), 3: Dim("width", min=least, max=4000)}
    program = torch.export.export(parts, (torch.randn(2, 3, 224, 196),), dynamic_shapes={"x": sizes}).module()
    for shape in ((1, 3, least, 100), (3, 3, 56, 57)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), parts(x))
