import pytest

from sequencer2d.environment import Launch, is_first_process, launch, under_torchrun
from sequencer2d.errors import ConfigError

TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (*TWO, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_there_is_one_process():
    assert launch() == Launch(0, 0, 1, 1)


def test_torchruns_variables(monkeypatch):
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    assert launch() == Launch(1, 1, 2, 1)


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be an integer"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be an integer"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE must be an integer"),
        ({"RANK": "-1"}, "RANK must be an integer"),
        ({"RANK": "2"}, "RANK=2 must be below WORLD_SIZE=2"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK must be an integer"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE must be an integer"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
    ],
)
def test_what_no_launcher_sets_is_refused(monkeypatch, changed, says):
    for name, value in (TWO | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        launch()


@pytest.mark.parametrize("rank, first", [(None, True), ("", True), (" 0 ", True), ("1", False), ("x", False)])
def test_the_first_process_speaks_for_all(monkeypatch, rank, first):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() is first


def test_numbers_may_have_spaces_zeros_and_up_to_a_million(monkeypatch):
    for name, value in (TWO | {"WORLD_SIZE": " 000000002 ", "LOCAL_WORLD_SIZE": "000000002"}).items():
        monkeypatch.setenv(name, value)
    assert launch() == Launch(1, 1, 2, 2)
    monkeypatch.setenv("WORLD_SIZE", "1000000")
    assert launch().world_size == 1_000_000
    for wrong in ("1000001", "0000000002", "²"):
        monkeypatch.setenv("WORLD_SIZE", wrong)
        with pytest.raises(ConfigError, match="WORLD_SIZE must be an integer of at least 1"):
            launch()


@pytest.mark.parametrize("said, under", [(None, False), ("", False), ("run", True)])
def test_torchrun_names_its_runs(monkeypatch, said, under):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if said is not None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", said)
    assert under_torchrun() is under
