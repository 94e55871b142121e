"""The example of docs/export-cpp.md: exported, compiled and run as it stands, without Python in the program."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths, library_paths

from sequencer2d.export import load_artifact

PAGE = Path(__file__).parents[2] / "docs" / "export-cpp.md"
COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.timeout(900)
def test_the_documented_program_gives_pythons_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    python, program = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("python", "cpp"))
    exec(compile(python, "export-cpp.md", "exec"), {})
    artifact = load_artifact("model.pt2", trust=True)
    assert artifact.kind == "aoti"
    assert artifact.pretrained_cfg["input_size"] == (3, 32, 32)
    expected = artifact(torch.ones(2, 3, 40, 56))

    Path("main.cpp").write_text(program)
    # What the page's CMakeLists.txt comes to, without asking for CMake.
    libraries = library_paths()
    flags = [f"-I{path}" for path in include_paths()] + [f"-L{path}" for path in libraries]
    flags += [f"-Wl,-rpath,{path}" for path in libraries] + ["-ltorch", "-ltorch_cpu", "-lc10"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    subprocess.run([COMPILER, "-std=c++20", "-O0", abi, "main.cpp", "-o", "classify", *flags], check=True, timeout=600)
    output = subprocess.run(["./classify", "model.pt2"], check=True, capture_output=True, text=True, timeout=120).stdout
    said = dict(line.split(" ", 1) for line in output.splitlines())
    assert said["logits"] == "2 x 10"
    assert said["mean"] == "[0.485, 0.456, 0.406]"
    assert float(said["first"]) == pytest.approx(float(expected[0, 0]), rel=1e-4, abs=1e-4)


def test_a_package_of_another_torch_is_named(tmp_path: Path) -> None:
    """A package whose compiled code does not load says which torch compiled it."""
    import json
    import zipfile

    from sequencer2d.errors import CheckpointError
    from sequencer2d.export.metadata import describe, to_strings
    from tests.export.conftest import small

    meta = describe(small(), "aoti", "fp32")
    meta["artifact"]["torch"] = "1.0.0"
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("model/data/aotinductor/model/x_metadata.json", json.dumps(to_strings(meta)))
        archive.writestr("model/data/aotinductor/model/x.so", b"no code")
    with pytest.raises(CheckpointError, match=r"was compiled with torch 1\.0\.0"):
        load_artifact(tmp_path / "old.pt2", trust=True)
