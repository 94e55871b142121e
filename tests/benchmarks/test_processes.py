"""The benchmark of several processes: a row for each number of them."""

import json
import sys

from benchmarks import processes as script

TINY = [
    "model.name=sequencer2d_n", "model.overrides.depths=1,1", "model.overrides.dims=16,16",
    "model.overrides.hidden_dims=4,4", "model.overrides.patch_sizes=2,1", "precision=fp32",
]  # fmt: skip


def test_one_and_two_processes_have_a_row_each(tmp_path, monkeypatch):
    path = tmp_path / "processes.json"
    arguments = ["--recipes", "cifar10", "--compile", "false", "--device", "cpu", "--batch", "4", "--size", "8"]
    arguments += ["--steps", "2", "--output", str(path), "--fields", *TINY]
    monkeypatch.setattr(sys, "argv", ["processes", *arguments])
    script.main()
    alone, together = json.loads(path.read_text())["rows"]
    assert (alone["processes"], together["processes"]) == (1, 2)
    assert alone["efficiency"] == 1
    assert together["efficiency"] == round(together["images_per_s"] / alone["images_per_s"] / 2, 3)
