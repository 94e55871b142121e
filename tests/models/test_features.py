import pytest
import torch

from sequencer2d import create_model
from sequencer2d.errors import ConfigError
from sequencer2d.models import Sequencer2DFeatures, save_weights
from tests.models.small import SIZES, small_model


def extractor(**options):
    torch.manual_seed(0)
    return create_model("sequencer2d_n", features_only=True, **SIZES, **options).eval()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_maps_of_all_stages(layout):
    backbone = extractor(output_fmt=layout)
    maps = backbone(torch.randn(2, 3, 56, 70))
    channels = [taken.shape[1 if layout == "NCHW" else 3] for taken in maps]
    strides = [56 // taken.shape[2 if layout == "NCHW" else 1] for taken in maps]
    assert channels == backbone.feature_info.channels() == [16, 32, 32, 32]
    assert strides == backbone.feature_info.reduction() == [7, 14, 14, 14]


def test_chosen_maps_leave_the_rest_of_the_model_out():
    backbone = extractor(out_indices=(1, 0))
    assert backbone.feature_info.channels() == [16, 32]
    assert backbone.feature_info.module_name() == ["stages.0", "stages.1"]
    assert backbone.feature_info[2]["num_chs"] == 32
    assert len(backbone(torch.randn(1, 3, 28, 28))) == 2
    assert not [name for name in backbone.state_dict() if name.startswith(("stages.2", "norm", "head"))]


def test_maps_are_those_of_the_model_with_the_weights(tmp_path):
    model, x = small_model(), torch.randn(1, 3, 29, 28)
    save_weights(model, tmp_path / "weights.safetensors")
    backbone = extractor(out_indices=(0, 3), checkpoint=str(tmp_path / "weights.safetensors"))
    expected = model.forward_intermediates(x, indices=(0, 3), intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(backbone(x), expected, strict=True))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_final_norm_is_applied_to_the_last_map_alone_and_only_when_asked_for(layout):
    model, x = small_model(), torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 2)
        model.norm.bias.normal_()
        normed = Sequencer2DFeatures(model, out_indices=(0, 3), output_fmt=layout, norm=True)(x)
        plain = Sequencer2DFeatures(model, out_indices=(0, 3), output_fmt=layout)(x)
        expected = model.forward_features(x)
    assert torch.equal(normed[0], plain[0])
    torch.testing.assert_close(normed[1] if layout == "NHWC" else normed[1].permute(0, 2, 3, 1), expected)
    assert (normed[1] - plain[1]).abs().max() > 0.1
    without_last = Sequencer2DFeatures(model, out_indices=(0, 1), output_fmt=layout, norm=True)
    assert isinstance(without_last.norm, torch.nn.Identity)


def test_gradients_reach_every_parameter():
    backbone = extractor(out_indices=(3,)).train()
    backbone.set_grad_checkpointing()
    sum(taken.square().sum() for taken in backbone(torch.randn(1, 3, 28, 28))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_choices_that_do_not_exist():
    with pytest.raises(ConfigError, match="stages 0 to 3"):
        extractor(out_indices=(4,))
    with pytest.raises(ConfigError, match="NHWC"):
        extractor(output_fmt="CNHW")
    with pytest.raises(ConfigError, match="features_only=True"):
        create_model("sequencer2d_n", out_indices=(0,))
