"""`sequencer2d models`: the table of variants."""

import json
from collections.abc import Callable

import pytest

from sequencer2d.models import list_models
from sequencer2d.peers import list_peers
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
    macs = [json.loads(command("models", "sequencer2d_n", "--size", s, "--json").out)[0]["macs"] for s in (224, 448)]
    assert macs[1] == pytest.approx(4 * macs[0], rel=0.01)
