"""The notebook of docs/ runs from the first cell to the last, with a small model in place of the one that it trains."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
QUICK = """
folder = None
digits_per_class = 6
minutes = 1
fields = [
    "run.progress=none", "run.epochs=1", "run.cpu_threads=1", "run.tensorboard=false", "data.workers=0",
    "data.image_size=16",
    'model.overrides={"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (4, 2)}',
]
"""
"""What stands in the cell of settings while it is tested."""


def cells(kind: str) -> list[dict[str, Any]]:
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in stored["cells"] if cell["cell_type"] == kind]


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, 4)
    (settings,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    assert set(re.findall(r"^\w+(?= = )", settings.source, re.M)) == set(re.findall(r"^\w+(?= = )", QUICK, re.M))
    settings.source = QUICK
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "60 of 60 images get the same answer" in said
    assert (tmp_path / "runs" / "notebook" / "model.onnx").is_file()


def test_it_is_stored_with_the_outputs_of_one_run_small_pictures_and_no_paths_of_the_machine() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    counts = [cell["execution_count"] for cell in cells("code")]
    assert counts == list(range(1, len(counts) + 1))
    shown = json.dumps([cell["outputs"] for cell in cells("code")])
    assert shown.count("image/png") >= 3
    assert "images get the same answer" in shown
    assert not re.search(r"Traceback|/(home|tmp|root|work)/", shown)
