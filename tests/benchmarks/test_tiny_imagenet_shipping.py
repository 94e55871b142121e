"""The model that ships is trained through hard stops, and what comes of it loads, goes on and says what it did."""

import json
import re
from pathlib import Path

from benchmarks.tiny_imagenet import moving, shipping
from benchmarks.tiny_imagenet.segments import DECAY, PLATEAU, median_rate, repeated
from benchmarks.tiny_imagenet.tables import shipped_rows, size_rows, stop_rows
from sequencer2d import recipes
from sequencer2d.evaluation.predict import class_names_of
from sequencer2d.models import load_model
from tests.benchmarks.test_tiny_imagenet import SMALL
from tests.data.images import make_folder

FIELDS = [field for field in SMALL if not field.startswith(("run.epochs", "schedule."))]


def step(number: int, loss: float, **more: float) -> dict[str, object]:
    return {"kind": "step", "step": number, "epoch": number / 10, "loss": loss, "lr": 1e-3, **more}


def test_lines_between_the_checkpoint_and_the_kill_are_compared():
    before = [step(10, 5.0), step(20, 4.0), {"kind": "epoch", "step": 20}, step(30, 3.0)]
    after = [step(10, 5.0), step(20, 4.5), step(30, 3.0), step(40, 2.0)]
    told = {"killed_after_step": 30, "goes_on_at_step": 12, "lines_repeated": 2, "largest_difference_of_loss": 0.5}
    assert repeated(before, after, 12) == told
    assert repeated(before, after, 30)["largest_difference_of_loss"] is None


def test_one_slow_line_leaves_the_rate_alone():
    assert median_rate([step(n, 5.0, images_per_s=rate) for n, rate in enumerate((9.0, 200.0, 210.0))]) == 200


def test_the_parts_differ_in_schedule_alone():
    plateau, decay = recipes.get(PLATEAU), recipes.get(DECAY)
    assert (plateau.optimizer, plateau.regularization, plateau.data) == (
        decay.optimizer, decay.regularization, decay.data,
    )  # fmt: skip
    assert decay.data.size == (96, 96)
    assert decay.model.checkpoint == f"{plateau.run.output}/checkpoints/last.pt"


def test_a_later_call_keeps_the_stops_and_adds_the_time_of_the_plateau_that_it_makes_longer():
    earlier = {"stops": [{"goes_on_at_step": 12}], "seconds": {"plateau": 340.5, "decay": 182.8}}
    now = {"stops": [{"goes_on_at_step": 40}], "seconds": {"plateau": 100.2, "decay": 200.0}}
    assert shipping.joined(earlier, now) == {
        "stops": [{"goes_on_at_step": 12}, {"goes_on_at_step": 40}],
        "seconds": {"plateau": 440.7, "decay": 200.0},
    }


def test_from_images_to_weights_through_a_hard_stop(tmp_path: Path, capsys):
    data = make_folder(tmp_path / "data", {"train": {"a": 40, "b": 40}, "val": {"a": 4, "b": 4}})
    fields = [*FIELDS, "run.checkpoint_interval_steps=5", "run.log_interval=1", "data.mixup_group=4"]
    (data / "words.txt").write_text("a\tcat, true cat\nb\tcat, big cat\nc\tdog, domestic dog\n", encoding="utf-8")
    options = ["--data", str(data), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    times = ["--seconds", "30", "--plateau-share", "0.4", "--reserve", "1", "--kill-after", "1"]
    times += ["--stops", "1", "--decay-epochs", "1"]
    assert shipping.main([*options, *times, *fields]) == 0
    starts = [float(seconds) for seconds in re.findall(r"trains after (\d+) s", capsys.readouterr().out)]
    assert len(starts) == 3
    assert min(starts) >= 1, "lines that a killed process left behind are no sign that the next one trains"

    result = json.loads((tmp_path / "out" / f"{shipping.NAME}.json").read_text(encoding="utf-8"))
    row = result["rows"][0]
    assert row["stops"][0]["goes_on_at_step"] % 5 == 0
    assert row["stops"][0]["largest_difference_of_loss"] in (None, 0.0)
    steps = [point[0] for point in row["curve"]["plateau"]]
    assert steps == list(range(1, len(steps) + 1)), "the curve has every step once"
    assert (row["sizes"], row["images"]) == (list(shipping.SIZES), 8)
    assert row["sizes_top1_percent"][row["sizes"].index(shipping.INPUT_SIZE)] == row["top1_percent"]
    assert [size["side"] for size in size_rows([row])] == list(shipping.SIZES)
    assert stop_rows([row])[0]["number"] == 1
    both = f"{row['epochs']['plateau']:.1f} + {row['epochs']['decay']:.1f}"  # a busy machine may cut the decay short
    assert shipped_rows([row])[0]["both_epochs"] == both
    assert 0 < row["epochs"]["decay"] <= 1

    model = load_model(tmp_path / "out" / shipping.WEIGHTS)
    assert class_names_of(model) == ("cat, true cat", "cat, big cat")
    assert shipping.class_words(data, ["a", "c"]) == ["cat", "dog"]
    assert model.pretrained_cfg["input_size"] == (3, shipping.INPUT_SIZE, shipping.INPUT_SIZE)
    assert (tmp_path / "out" / shipping.WEIGHTS).stat().st_size == row["bytes"]
    assert moving.unpack(tmp_path / "out" / "bundle", tmp_path / "later") == [f"{PLATEAU}: unpacked"]


def test_a_run_that_fails_is_said_with_its_last_words(tmp_path: Path, capsys):
    options = ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    assert shipping.main([*options, "--seconds", "60", *FIELDS]) == 1
    assert "tiny_imagenet_plateau ended with code" in capsys.readouterr().err
