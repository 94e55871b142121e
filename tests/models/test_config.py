import dataclasses

import pytest

from sequencer2d.errors import ConfigError
from sequencer2d.models.config import CHOICES, ModelConfig
from sequencer2d.nn.init import CONVOLUTION_INITS
from sequencer2d.ops import CELLS


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().num_classes = 3  # type: ignore[misc]


def test_lists_become_tuples_and_a_single_size_a_square():
    config = ModelConfig(depths=[1, 1, 1, 1], img_size=96)  # type: ignore[arg-type]
    assert config.depths == (1, 1, 1, 1)
    assert config.img_size == (96, 96)
    assert hash(config) == hash(ModelConfig(depths=(1, 1, 1, 1), img_size=(96, 96)))


def test_strides_of_the_stages():
    assert ModelConfig().reductions == (7, 14, 14, 14)
    assert ModelConfig(patch_sizes=(2, 2, 1, 1)).total_stride == 4


def test_stochastic_depth_rises_linearly_from_zero_to_the_rate():
    rates = [rate for stage in ModelConfig(drop_path_rate=0.4).drop_path_rates for rate in stage]
    assert len(rates) == 18
    assert rates == pytest.approx([0.4 * i / 17 for i in range(18)])


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"depths": (1, 2)}, "depths has 2"),
        ({"dims": (192, 0, 384, 384)}, "positive integers"),
        ({"dims": 192}, "positive integers"),
        ({"cell": "ltsm"}, "'lstm', 'gru', 'rnn'"),
        ({"axes": "diagonal"}, "'both'"),
        ({"fusion": "sum"}, "'concat'"),
        ({"global_pool": "gem"}, "'avg'"),
        ({"drop_path_rate": 1.0}, "probability"),
        ({"drop_rate": "0.1"}, "probability"),
        ({"mlp_ratio": 0}, "positive"),
        ({"in_chans": 0}, "in_chans=0"),
        ({"stem_overlap": 8}, "from 0 to the stem's stride, 7"),
        ({"stem_overlap": -1}, "from 0 to the stem's stride, 7"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"img_size": (224, 224, 3)}, "height, width"),
        ({"fusion": "add", "axes": "vertical"}, "axes='vertical' has one"),
        ({"fusion": "none", "hidden_dims": (24, 48, 48, 48)}, "dims / 4"),
    ],
)
def test_what_does_not_fit_is_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ModelConfig(**options)


def test_an_unknown_option_lists_close_ones():
    with pytest.raises(ConfigError, match="did you mean hidden_dims"):
        ModelConfig().replace(hiden_dims=(1, 1, 1, 1))


def test_the_choices_are_the_rows_of_tables_that_need_torch():
    """The table of variants answers without loading torch, so it cannot read them there."""
    assert CHOICES["cell"] == tuple(CELLS)
    assert CHOICES["conv_init"] == tuple(CONVOLUTION_INITS)
