"""Runs that are killed again and again end as one that nobody killed; `kills.py` does it on demand a hundred times."""

import pytest


@pytest.mark.parametrize("processes, workers, kills", [(1, 0, 6), (1, 1, 2), (2, 0, 2)])
def test_what_a_killed_run_leaves_is_what_a_whole_one_leaves(tmp_path, preloaded, processes, workers, kills):
    options = {"--kills": kills, "--processes": processes, "--workers": workers}
    arguments = [item for pair in options.items() for item in pair]
    call = preloaded.start("tests.training.kills", tmp_path, *arguments, folder=tmp_path)
    assert call.wait(280) == 0, call.stderr_text()[-3000:]
    assert f"{kills} kills" in call.stdout_text()
    assert "all equal" in call.stdout_text()
