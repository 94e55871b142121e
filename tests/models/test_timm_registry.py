import pytest
import timm
import torch

from sequencer2d import list_models
from sequencer2d.errors import ConfigError
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.models.timm_registry import register_timm


def test_timm_creates_ours_by_prefixed_names_and_keeps_its_own():
    own = timm.models.model_entrypoint("sequencer2d_s")
    names = register_timm()
    assert names == [f"s2d_{name}" for name in list_models()]
    assert set(timm.list_models("s2d_*")) == set(names)
    model = timm.create_model("s2d_sequencer2d_n", num_classes=3, drop_path_rate=0.1)
    assert isinstance(model, Sequencer2D)
    assert model.variant == "sequencer2d_n"
    assert (model.num_classes, model.config.drop_path_rate) == (3, 0.1)
    assert timm.models.model_entrypoint("sequencer2d_s") is own


def test_registering_twice_changes_nothing():
    register_timm()
    first = timm.models.model_entrypoint("s2d_sequencer2d_n")
    register_timm()
    assert timm.models.model_entrypoint("s2d_sequencer2d_n") is first


def test_timm_can_take_features():
    register_timm()
    backbone = timm.create_model("s2d_sequencer2d_n", features_only=True, out_indices=(0, 1))
    assert [tuple(taken.shape) for taken in backbone(torch.randn(1, 3, 28, 28))] == [(1, 96, 4, 4), (1, 192, 2, 2)]


@pytest.mark.parametrize("prefix, complaint", [("", "timm has a model 'sequencer2d_s'"), ("mine.", "dot")])
def test_a_prefix_that_cannot_be(prefix, complaint):
    with pytest.raises(ConfigError, match=complaint):
        register_timm(prefix)
