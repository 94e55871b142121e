"""The paper's peers in the benchmark: the plan of Table 1 holds them, and a run measures them or says why not."""

from pathlib import Path

import pytest

from sequencer2d.benchmark import PLANS, parse_contender
from sequencer2d.benchmark.published import TABLE
from sequencer2d.benchmark.results import label, with_ratio
from sequencer2d.errors import ConfigError
from sequencer2d.peers import PEERS
from tests.benchmark.small import SIZE, SMALL, cases, measure


def test_the_plan_of_table_1_holds_every_row_in_both_modes_and_protocols() -> None:
    planned = PLANS["table1"].cases(["bf16"], ["graph"])
    found = {(case.contender.model, case.size, case.mode, case.forms) for case in planned if case.batch == 16}
    wanted = {
        (row.model, row.size, mode, forms)
        for row in TABLE
        for mode in ("training", "inference")
        for forms in (("paper",), ("graph",))
    }
    assert wanted <= found
    assert {"vip_s7", "vip_m7", "cyclemlp_b2", "cyclemlp_b3", "cyclemlp_b4", "t2t_vit_t_19", "gfnet_h_s", "gfnet_h_b",
            "gfnet_b_384"} <= {row.model for row in TABLE} & set(PEERS)  # fmt: skip


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_peer_is_measured_and_compared(mode: str, tmp_path: Path) -> None:
    rows, _ = measure(cases("cyclemlp_b1", SMALL, mode=mode), tmp_path / "rows.json")
    peer, ours = rows
    assert peer["error"] is None
    assert (peer["model"], peer["library"], peer["family"], peer["gate"]) == ("cyclemlp_b1", "peers", "LMLP", None)
    assert (peer["parameters"], peer["size"]) == (15_155_400, SIZE)
    assert peer["images_per_s"] > 0
    assert label(peer) == "cyclemlp_b1"
    ratios = {row["model"]: row["ratio"] for row in with_ratio(rows, "cyclemlp_b1")}
    assert ratios == {"cyclemlp_b1": 1.0, SMALL: ours["images_per_s"] / peer["images_per_s"]}


def test_a_size_that_vip_does_not_take_is_an_error_in_its_row(tmp_path: Path) -> None:
    rows, _ = measure(cases("vip_s7"), tmp_path / "rows.json")
    assert [row["images_per_s"] for row in rows] == [None]
    assert "this ViP takes 224×224 pixels only" in rows[0]["error"]


def test_peers_have_no_implementations() -> None:
    with pytest.raises(ConfigError, match="gfnet_s has no recurrence to choose an implementation of"):
        parse_contender("gfnet_s@cudnn")
