"""Which blocks the functions of the analysis take unless they are told otherwise."""

from torch import nn

from sequencer2d.analysis.blocks import block_names, pick_blocks, spread_blocks


def stages(*depths: int) -> nn.Module:
    """A model of stages.N.blocks.M."""
    blocks = [nn.ModuleDict({"blocks": nn.ModuleList(nn.Identity() for _ in range(depth))}) for depth in depths]
    return nn.ModuleDict({"stages": nn.ModuleList(blocks)})


def test_of_a_few_stages_the_last_block_of_each_is_taken() -> None:
    assert spread_blocks(stages(2, 1, 3)) == ("stages.0.blocks.1", "stages.1.blocks.0", "stages.2.blocks.2")
    assert spread_blocks(stages(1, 1, 1, 1), 4) == tuple(f"stages.{number}.blocks.0" for number in range(4))


def test_two_stages_are_the_fewest_and_the_number_itself_is_not_too_many() -> None:
    assert spread_blocks(stages(3, 2)) == ("stages.0.blocks.2", "stages.1.blocks.1")
    assert spread_blocks(stages(3, 2), 2) == ("stages.0.blocks.2", "stages.1.blocks.1")
    assert spread_blocks(stages(6, 1), 2) == ("stages.0.blocks.5", "stages.1.blocks.0")


def test_of_one_stage_or_many_blocks_spread_over_the_depth_are_taken() -> None:
    assert spread_blocks(stages(8)) == tuple(f"stages.0.blocks.{number}" for number in (1, 3, 5, 7))
    assert spread_blocks(stages(2)) == ("stages.0.blocks.0", "stages.0.blocks.1")
    assert spread_blocks(stages(3)) == tuple(f"stages.0.blocks.{number}" for number in range(3))
    assert spread_blocks(stages(1, 1, 1, 1, 1), 2) == ("stages.1.blocks.0", "stages.4.blocks.0")


def test_blocks_that_are_named_are_taken_in_their_order() -> None:
    model = stages(2, 2)
    assert pick_blocks(model, ["stages.1.blocks.0", "stages.0"]) == ("stages.1.blocks.0", "stages.0")
    assert pick_blocks(model, None) == ("stages.0.blocks.1", "stages.1.blocks.1")
    assert len(block_names(model)) == 4
