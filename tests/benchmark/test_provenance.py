"""Where numbers come from: the sources that decide a speed, the device, the versions."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sequencer2d
from sequencer2d.benchmark import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package, with one file in each of some layers."""
    root = tmp_path / "sequencer2d"
    for layer in ("ops", "nn", "models", "data"):
        (root / layer).mkdir(parents=True)
        (root / layer / "a.py").write_text(layer, encoding="utf-8")
    monkeypatch.setattr(provenance, "PACKAGE_ROOT", root)
    return root


@pytest.mark.parametrize("layer, changes", [("ops", True), ("nn", True), ("models", True), ("data", False)])
def test_the_digest_changes_with_the_layers_that_decide_the_speed(layer: str, changes: bool, package: Path) -> None:
    before = provenance.source_digest()
    assert re.fullmatch("[0-9a-f]{12}", before)
    assert provenance.source_digest() == before
    (package / layer / "a.py").write_text("changed", encoding="utf-8")
    assert (provenance.source_digest() != before) == changes


def test_a_renamed_file_changes_the_digest(package: Path) -> None:
    before = provenance.source_digest()
    (package / "ops" / "a.py").rename(package / "ops" / "b.py")
    assert provenance.source_digest() != before


def test_the_commit_says_whether_tracked_files_differ(package: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=package.parent, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    clean = provenance.commit()
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (package / "new.py").write_text("not tracked", encoding="utf-8")
    assert provenance.commit() == clean
    (package / "ops" / "a.py").write_text("changed", encoding="utf-8")
    assert provenance.commit() == f"{clean}+changes"


def test_a_repository_further_up_is_somebody_elses(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=package.parent.parent, check=True)
    monkeypatch.delenv("SEQUENCER2D_COMMIT", raising=False)
    assert provenance.commit() == "unknown"


def test_the_processor_and_the_versions_are_named() -> None:
    found = provenance.device("cpu")
    assert found["kind"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert found["name"]
    versions = provenance.versions()
    assert versions["sequencer2d"] == sequencer2d.__version__
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert {"python", "torchvision", "timm", "numpy"} <= set(versions)


def test_a_gpu_is_named_with_its_memory_and_the_versions_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="a GPU", total_memory=143155 * 2**20)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", {1: properties}.get)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    assert provenance.device() == {
        "kind": "cuda", "name": "a GPU", "count": 2, "memory_mib": 143155, "cuda": "13.0", "cudnn": 91900,
    }  # fmt: skip
    assert provenance.device("cpu")["kind"] == "cpu"
