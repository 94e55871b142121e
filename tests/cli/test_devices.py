"""Every verb that runs a model, on every device: a model is loaded on the CPU, and must be where its images are."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Outcome

FLAGS = ("--json",)
COMMANDS = {
    "eval": ("eval", "MODEL", "--data", "digits", *FLAGS, "data.workers=0"),
    "predict": ("predict", "MODEL", "PHOTOS", *FLAGS),
    "embed": ("embed", "MODEL", "PHOTOS", "--output", "FOLDER/features.npz"),
    "similar": ("similar", "MODEL", "PHOTOS/a.png", "--among", "PHOTOS", *FLAGS),
    "analyze erf": ("analyze", "erf", "MODEL", "--images", "PHOTOS", "--output", "FOLDER"),
    "analyze resolution": ("analyze", "resolution", "MODEL", "--data", "digits", "--sizes", "8", "--output", "FOLDER"),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_verb_runs_its_model_where_it_is_told_to(
    words: tuple[str, ...], device: str, tiny: Path, images: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    named = {"MODEL": tiny, "PHOTOS": images, "FOLDER": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    argv = [named.get(word, word.replace("FOLDER", str(tmp_path / "out"))) for word in words]
    argv = [str(images / "a.png") if word == "PHOTOS/a.png" else word for word in argv]
    command(*argv, "--device", device)


@pytest.mark.gpu
def test_a_model_says_the_same_on_a_gpu(tiny: Path, images: Path, command: Callable[..., Outcome]) -> None:
    both = [
        json.loads(command("predict", tiny, images, "--top", 10, "--json", "--device", device).out)
        for device in ("cpu", "cuda")
    ]
    found = [[{one["index"]: one["probability"] for one in photo["guesses"]} for photo in said] for said in both]
    for on_cpu, on_gpu in zip(*found, strict=True):
        np.testing.assert_allclose([on_gpu[index] for index in on_cpu], list(on_cpu.values()), atol=1e-3)
