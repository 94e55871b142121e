"""Everything that is written as JSON has the keys that other programs read: a key that changes breaks them silently."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from sequencer2d.models import load_model
from sequencer2d.models.hub_config import to_hub_config
from tests.cli.conftest import Outcome, save_tiny

KEYS: dict[str, list[str]] = json.loads((Path(__file__).parent / "json_keys.json").read_text(encoding="utf-8"))
"""By what is written: the paths of its values. `[]` stands for an entry of a list, `*` for a name that varies."""
TINY_RUN = (
    "model.name=sequencer2d_n", "model.overrides.depths=1,1", "model.overrides.dims=16,16",
    "model.overrides.hidden_dims=4,4", "model.overrides.patch_sizes=2,2", "run.epochs=1", "run.log_interval=1",
    "run.device=cpu", "data.workers=0", "data.batch_size=512", "run.tensorboard=false",
    "optimizer.clip_grad_norm=1", "schedule.warmup_epochs=0", "schedule.cooldown_epochs=0",
)  # fmt: skip


SECTIONS = ("config", "data", "model", "optimizer", "schedule", "regularization", "distributed", "run")
"""Of a configuration, whose fields `tests/training/fields.json` lists."""


def paths(value: Any, varying: tuple[str, ...] = ()) -> list[str]:
    """The paths of a value's leaves, each once."""

    def walk(node: Any, path: str) -> Iterator[str]:
        if path in SECTIONS:
            yield path
        elif isinstance(node, dict) and node:
            for key, each in node.items():
                yield from walk(each, f"{path}.*" if path in varying else f"{path}.{key}".removeprefix("."))
        elif isinstance(node, list) and any(isinstance(each, dict) for each in node):
            for each in node:
                yield from walk(each, f"{path}[]")
        else:
            yield path

    return sorted(set(walk(value, "")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps."""
    from sequencer2d.cli.main import main

    folder = tmp_path_factory.mktemp("json") / "run"
    main(["train", "digits", *TINY_RUN, f"run.output={folder}"])
    return folder


def of_file(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def of_header(path: Path) -> Any:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["sequencer2d"])


@pytest.mark.parametrize(
    ("what", "read"),
    [
        ("config.json", lambda run: of_file(run / "config.json")),
        ("summary.json", lambda run: of_file(run / "summary.json")),
        ("best.safetensors", lambda run: of_header(run / "best.safetensors")),
        ("config.json of the hub", lambda run: to_hub_config(load_model(run / "best.safetensors"))),
        (
            "log.jsonl",
            lambda run: [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()],
        ),
    ],
)
def test_files_of_a_run(run: Path, what: str, read: Callable[[Path], Any]) -> None:
    assert paths(read(run)) == KEYS[what]


@pytest.mark.parametrize(
    ("what", "arguments", "varying"),
    [
        ("models", ("models", "sequencer2d_n"), ()),
        ("models, peers", ("models", "gfnet_ti"), ()),
        ("predict", ("predict", "MODEL", "IMAGES"), ()),
        ("eval", ("eval", "MODEL", "--data", "digits", "--per-class", "data.workers=0"), ("per_class", "classes")),
        ("train --list", ("train", "--list"), ("",)),
        ("train --fields", ("train", "--fields"), ("",)),
        ("train --dry-run", ("train", "digits", "--dry-run"), ()),
    ],
)
def test_what_verbs_print(
    command: Callable[..., Outcome], tmp_path: Path, what: str, arguments: tuple[str, ...], varying: tuple[str, ...]
) -> None:
    given = {"MODEL": tmp_path / "m.safetensors", "IMAGES": tmp_path / "images"}
    save_tiny(given["MODEL"])
    given["IMAGES"].mkdir()
    Image.new("RGB", (9, 9)).save(given["IMAGES"] / "a.png")
    (given["IMAGES"] / "broken.png").write_bytes(b"no image")
    outcome = command(*(given.get(each, each) for each in arguments), "--json")
    assert paths(json.loads(outcome.out), varying) == KEYS[what]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and four images in two classes."""
    root = tmp_path_factory.mktemp("analyze-json")
    save_tiny(root / "m.safetensors", ("a", "b"))
    for name in "ab":
        (root / "data" / name).mkdir(parents=True)
        for index, pixels in enumerate(np.random.default_rng(ord(name)).integers(0, 256, (2, 32, 32, 3), np.uint8)):
            Image.fromarray(pixels).save(root / "data" / name / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("resolution", ("--sizes", "8", "16")),
        ("attack", ()),
        ("shape-texture", ()),
        ("corruptions", ("--corruptions", "impulse_noise", "--severities", "1", "--image-size", "32")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_what_analyses_print(
    command: Callable[..., Outcome], folder: Path, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    pytest.importorskip("matplotlib")
    if kind == "corruptions":
        pytest.importorskip("imagecorruptions")
    written = () if kind == "shape-texture" else ("--output", tmp_path, "--formats", "png")
    data = ("--data", folder / "data", "--split", "", "--device", "cpu", "--json")
    outcome = command("analyze", kind, folder / "m.safetensors", *options, *written, *data)
    assert paths(json.loads(outcome.out)) == KEYS[f"analyze {kind}"]


@pytest.mark.parametrize("kind", ["erf", "memory", "cka", "hidden-states"])
def test_arrays_of_analyses(command: Callable[..., Outcome], folder: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    images = ("--images", folder / "data" / ("a/0.png" if kind == "hidden-states" else ""))
    model = folder / "m.safetensors"
    command("analyze", kind, model, *images, "--output", tmp_path, "--formats", "png", "--device", "cpu")
    names = set()
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as arrays:
            names |= set(arrays)
    assert sorted(names) == KEYS[f"arrays of {kind}"]
