"""The built wheel carries the whole package: installed elsewhere, its command runs."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel alone; torch and the rest are borrowed from this one by a path file.

    The borrowed folder's own path files are not read, so an editable installation of this checkout stays unseen.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(pip, check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "venv" / "bin"


def run(environment: Path, *arguments: str | Path, cwd: Path) -> str:
    command = [environment / arguments[0], *arguments[1:]]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_installed_package_is_the_wheels(environment: Path, tmp_path: Path) -> None:
    code = "import sequencer2d; print(sequencer2d.__file__)"
    assert run(environment, "python", "-c", code, cwd=tmp_path).startswith(str(environment.parent))


def test_type_checkers_read_the_annotations_of_the_installed_package(environment: Path, tmp_path: Path) -> None:
    code = "import importlib.resources as r; print((r.files('sequencer2d') / 'py.typed').is_file())"
    assert run(environment, "python", "-c", code, cwd=tmp_path) == "True\n"


def test_the_wheel_holds_the_page_that_is_exported(environment: Path, tmp_path: Path) -> None:
    code = "from sequencer2d.export import page; print(*(len(page._part(name)) > 500 for name in %r))"
    names = ["page.css", "page.html", "page.js", "pixels.js"]
    assert run(environment, "python", "-c", code % names, cwd=tmp_path) == "True True True True\n"


def test_models_runs(environment: Path, tmp_path: Path) -> None:
    assert "sequencer2d_n" in run(environment, "sequencer2d", "models", "sequencer2d_n", cwd=tmp_path)


def test_predict_runs(environment: Path, tmp_path: Path, tiny: Path, images: Path) -> None:
    out = run(environment, "sequencer2d", "predict", tiny, images, "--json", cwd=tmp_path)
    assert len(json.loads(out)) == 3
