"""`sequencer2d predict`: a table or JSON, whatever the images are like."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.evaluation.predict import class_names_of, predict
from sequencer2d.evaluation.subject import input_fields
from sequencer2d.models import create_model, load_model, save_weights
from sequencer2d.tasks.drawing import with_caption
from tests.cli.conftest import DIGITS, TINY, Outcome


def test_json_holds_the_most_probable_classes(command: Callable[..., Outcome], tiny: Path, images: Path) -> None:
    outcome = command("predict", tiny, images, "--top", 3, "--json")
    rows = json.loads(outcome.out)
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.jpg", "c.png"]
    for row in rows:
        probabilities = [guess["probability"] for guess in row["guesses"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(guess["name"] == DIGITS[guess["index"]] for guess in row["guesses"])


def test_table_names_every_image(command: Callable[..., Outcome], tiny: Path, images: Path) -> None:
    outcome = command("predict", tiny, images / "a.png", images / "below", "--top", 1)
    assert "a.png" in outcome.out
    assert "c.png" in outcome.out
    assert outcome.out.count("%") == 2


def test_brackets_in_a_name_are_printed(command: Callable[..., Outcome], tiny: Path, images: Path) -> None:
    (images / "a.png").rename(images / "[bold]a.png")
    assert "[bold]a.png" in command("predict", tiny, images).out


def test_a_broken_image_is_reported_and_the_others_predicted(
    command: Callable[..., Outcome], tiny: Path, images: Path
) -> None:
    (images / "a.png").write_bytes(b"no image")
    outcome = command("predict", tiny, images, "--json")
    rows = json.loads(outcome.out)
    assert "error" in rows[0]
    assert all(row["guesses"] for row in rows[1:])
    assert "skipped" in outcome.err
    assert "a.png" in outcome.err


def test_what_is_left_out_is_said_once(command: Callable[..., Outcome], tiny: Path, images: Path) -> None:
    (images / "notes.txt").write_text("no image")
    assert command("predict", tiny, images).err.count("left out") == 1


def test_nothing_but_broken_images_is_a_mistake(mistake: Callable[..., str], tiny: Path, images: Path) -> None:
    (images / "a.png").write_bytes(b"no image")
    (images / "b.jpg").write_bytes(b"no image")
    assert "no image could be read; " in (one := mistake("predict", tiny, images / "a.png"))
    assert "more)" not in one
    assert "(and 1 more)" in mistake("predict", tiny, images / "a.png", images / "b.jpg")


def test_predictions_do_not_depend_on_the_batch_size(tiny: Path, images: Path) -> None:
    model = load_model(tiny)
    config = DataConfig(**input_fields(model))
    paths = sorted(images.rglob("*.*"))
    names = class_names_of(model)
    one = list(predict(model, paths, config, class_names=names, batch_size=1))
    all_ = list(predict(model, paths, config, class_names=names, batch_size=8))
    for a, b in zip([p.found.guesses for p in one], [p.found.guesses for p in all_], strict=True):
        assert [guess.name for guess in a] == [guess.name for guess in b]
        assert [guess.probability for guess in a] == pytest.approx([guess.probability for guess in b], abs=1e-5)


def test_predictions_are_the_models(tiny: Path, images: Path) -> None:
    model = load_model(tiny)
    path = images / "a.png"
    (prediction,) = predict(model, [path], DataConfig(**input_fields(model)), class_names=DIGITS, top_k=10)
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with Image.open(path) as image, torch.no_grad():
        expected = model(transform(image.convert("RGB"))[None]).softmax(-1)[0]
    found = {guess.index: guess.probability for guess in prediction.found.guesses}
    assert [found[index] for index in range(10)] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_model_in_training_mode_predicts_as_in_evaluation(images: Path) -> None:
    model = create_model("sequencer2d_n", num_classes=10, drop_path_rate=0.9, **TINY)
    model.head.fc.weight.data.normal_()
    config, paths = DataConfig(**input_fields(model)), sorted(images.rglob("*.*"))
    evaluated = list(predict(model.eval(), paths, config, class_names=DIGITS))
    assert list(predict(model.train(), paths, config, class_names=DIGITS)) == evaluated
    assert not model.training


def test_pictures_show_the_image_and_its_classes(command: Callable[..., Outcome], tiny: Path, images: Path) -> None:
    folder = images.parent / "new" / "drawn"
    (images / "a.png").write_bytes(b"no image")
    assert "b.jpg" in command("predict", tiny, images, "--top", 2, "--pictures", folder).out
    assert sorted(path.name for path in folder.iterdir()) == ["1-b.png", "2-c.png"]
    with Image.open(folder / "2-c.png") as picture, Image.open(images / "below" / "c.png") as photo:
        assert picture.mode == "RGB"
        assert picture.width == 4 * photo.width == 200, "a small image is enlarged by a whole number"
        enlarged = photo.convert("RGB").resize((200, 160), Image.Resampling.NEAREST)
        assert np.array_equal(np.asarray(picture)[:160], np.asarray(enlarged))
        below = np.asarray(picture)[160:]
        assert below.max() == 255
        assert below.min() < 50, "text"


def test_pictures_go_where_files_can_be_written(mistake: Callable[..., str], tiny: Path, images: Path) -> None:
    (images.parent / "file").write_text("")
    for folder in (images.parent / "file", images.parent / "file" / "below"):
        assert f"cannot write to {folder}: " in mistake("predict", tiny, images, "--pictures", folder)
    assert "expected a path, got an empty one" in mistake("predict", tiny, images, "--pictures", "")


def test_names_that_no_encoding_holds_are_drawn() -> None:
    drawn = with_caption(Image.new("RGB", (300, 20)), ["99.0%  caf\udce9", "1.0%  猫"])
    assert drawn.size == (300, 20 + 2 * 18 + 6)


def test_a_model_without_names_gets_imagenets_or_numbers() -> None:
    with torch.device("meta"):
        assert class_names_of(create_model("sequencer2d_n"))[0].startswith("tench")
        assert class_names_of(create_model("sequencer2d_n", num_classes=3)) == ("class 0", "class 1", "class 2")


def test_weights_that_are_no_numbers_are_a_mistake(mistake: Callable[..., str], tiny: Path, images: Path) -> None:
    model = load_model(tiny)
    model.norm.weight.data[3] = torch.nan
    save_weights(model, tiny)
    for verb in (
        ("predict", tiny, images, "--json"),
        ("eval", tiny, "--data", "digits"),
        ("export", tiny, "--format", "onnx"),
    ):
        assert "weights that are not finite numbers" in mistake(*verb)
    assert "norm.weight first" in mistake("predict", tiny, images)


def test_outputs_that_are_no_numbers_end_with_an_error(
    command: Callable[..., Outcome], tiny: Path, images: Path
) -> None:
    model = load_model(tiny)
    model.head.fc.weight.data.fill_(3e38)
    model.norm.bias.data.fill_(3e38)
    save_weights(model, tiny)
    for verb in (("predict", tiny, images, "--json"), ("eval", tiny, "--data", "digits", "--json", "data.workers=0")):
        outcome = command(*verb, code=3)
        assert outcome.out == ""
        assert "not finite numbers (NaN or infinity)" in outcome.err
        assert outcome.err.count("\n") == 1


def test_a_program_asks_for_consent(
    command: Callable[..., Outcome], mistake: Callable[..., str], tiny: Path, images: Path
) -> None:
    program = tiny.with_name("model.pt2")
    command("export", tiny, "--format", "torch", "--output", program)
    for verb in (("predict", program, images), ("bench", "--artifacts", program)):
        assert "holds code" in mistake(*verb)
        assert "--trust" in mistake(*verb)
    outcome = command("predict", program, images, "--json", "--trust")
    assert len(json.loads(outcome.out)) == 3
    command("bench", "--artifacts", program, "--trust", "--seconds", "0.01")


def test_predictions_are_written_as_a_table(
    command: Callable[..., Outcome], images: Path, tiny: Path, tmp_path: Path
) -> None:
    (images / "broken.png").write_bytes(b"no image")
    said = json.loads(command("predict", tiny, images, "--top", 2, "--csv", tmp_path / "x.csv", "--json").out)
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [
        (one["path"], str(k + 1), guess) for one in said if "guesses" in one for k, guess in enumerate(one["guesses"])
    ]
    assert len(rows) == 6
    for row, (path, rank, guess) in zip(rows, expected, strict=True):
        assert (row["path"], row["rank"], row["index"], row["class"]) == (
            path,
            rank,
            str(guess["index"]),
            guess["name"],
        )
        assert float(row["probability"]) == pytest.approx(guess["probability"], abs=1e-6)


def test_a_url_is_answered_with_what_to_do(mistake: Callable[..., str], tiny: Path) -> None:
    url = "https://example.org/photo.jpg"
    for told in (("predict", tiny, url), ("predict", url), ("embed", tiny, url, "--output", "x.npz")):
        assert f"{url} is a URL, and only files are read; download it first (curl -LO" in mistake(*told)
