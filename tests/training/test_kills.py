"""Runs that are killed again and again end as one that nobody killed; `kills.py` does it on demand a hundred times."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("processes, workers, kills", [(1, 0, 6), (1, 1, 2), (2, 0, 2)])
def test_what_a_killed_run_leaves_is_what_a_whole_one_leaves(tmp_path, processes, workers, kills):
    options = {"--kills": kills, "--processes": processes, "--workers": workers}
    command = [sys.executable, "-m", "tests.training.kills", str(tmp_path)]
    command += [str(item) for pair in options.items() for item in pair]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{kills} kills" in done.stdout
    assert "all equal" in done.stdout
