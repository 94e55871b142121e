"""`sequencer2d models`: the table of variants."""

import json
from collections.abc import Callable

import pytest
import torch

from sequencer2d.benchmark.cost import count_macs, count_parameters
from sequencer2d.models import create_model, list_models, model_config, variants
from sequencer2d.peers import list_peers, peer_config
from sequencer2d.peers import variants as peer_variants
from tests.cli.conftest import Outcome


def test_json_lists_every_model_with_its_cost(command: Callable[..., Outcome]) -> None:
    outcome = command("models", "--json")
    rows = {row["name"]: row for row in json.loads(outcome.out)}
    assert set(rows) == {*list_models(), *list_peers()}
    small = rows["sequencer2d_s"]
    assert small["parameters"] == 27_651_688
    assert small["macs"] / 1e9 == pytest.approx(8.4, rel=0.01)
    assert small["strides"] == [7, 14, 14, 14]


def test_table_can_be_filtered(command: Callable[..., Outcome]) -> None:
    outcome = command("models", "*_gru")
    assert "sequencer2d_s_gru" in outcome.out
    assert "sequencer2d_l" not in outcome.out
    assert "GMACs at 224²" in outcome.out


def test_macs_follow_the_image_size(command: Callable[..., Outcome]) -> None:
    macs = [
        json.loads(command("models", "sequencer2d_n", "--image-size", s, "--json").out)[0]["macs"] for s in (224, 448)
    ]
    assert macs[1] == pytest.approx(4 * macs[0], rel=0.01)


@pytest.mark.parametrize("name", list_models())
def test_stored_costs_are_those_of_the_model(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert (count_parameters(model), count_macs(model, 224)) == variants.COSTS[name]
    assert model_config(name).img_size == (224, 224)


@pytest.mark.parametrize("name", list_peers())
def test_stored_costs_are_those_of_the_peer(name: str) -> None:
    parameters, macs, strides = peer_variants.COSTS[name]
    with torch.device("meta"):
        model = create_model(name)
    assert (count_parameters(model), count_macs(model, peer_config(name).img_size)) == (parameters, macs)
    assert tuple(info["reduction"] for info in model.feature_info)[: len(strides)] == strides
