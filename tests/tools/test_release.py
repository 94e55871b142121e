"""A release is refused while anything about it is wrong, and its checks find what they look for."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from sequencer2d import __version__
from tools import release

CHANGELOG = """# Changelog

## 0.3.0 (unreleased)

* Not yet.

## 0.2.0 (2030-01-02)

* New: one.
* New: two.

## 0.1.0 (2029-01-02)
"""


def test_the_changelogs_section_is_found() -> None:
    title, section = release.changelog_section(CHANGELOG, "0.2.0")
    assert (title, section) == ("0.2.0 (2030-01-02)", "* New: one.\n* New: two.")
    assert release.changelog_problems("0.2.0", title, section) == []


@pytest.mark.parametrize(
    ("version", "problem"), [("0.3.0", "needs the date"), ("0.1.0", "has no section"), ("0.2", "has no section")]
)
def test_a_section_without_date_or_text_is_a_problem(version: str, problem: str) -> None:
    (found,) = release.changelog_problems(version, *release.changelog_section(CHANGELOG, version))
    assert problem in found


def test_the_changelog_has_a_section_for_the_present_version() -> None:
    _, section = release.changelog_section((release.ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__)
    assert section


def test_another_version_than_the_packages_is_a_problem() -> None:
    assert release.version_problems("0.2.0", '__version__ = "0.2.0"\n') == []
    assert "says 0.2.1" in release.version_problems("0.2.0", '__version__ = "0.2.1"\n')[0]
    assert "form" in release.version_problems("0.2", '__version__ = "0.2"\n')[0]


def test_the_version_stands_once() -> None:
    """No other file that is not a record of the past states the package's version as its own."""
    for name in ("pyproject.toml", "CITATION.cff"):
        assert f"version: {__version__}" not in (release.ROOT / name).read_text(encoding="utf-8")
        assert f'version = "{__version__}"' not in (release.ROOT / name).read_text(encoding="utf-8")


def make_wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_what_a_wheel_lacks_or_has_too_much_of_is_named(tmp_path: Path) -> None:
    info = "sequencer2d-0.2.0.dist-info"
    whole = {
        "sequencer2d/__init__.py": "",
        f"{info}/METADATA": "Name: sequencer2d\nVersion: 0.2.0\n\n# A text",
        f"{info}/licenses/LICENSE": "free",
    }
    tracked = {"sequencer2d/__init__.py"}
    assert release.wheel_problems(make_wheel(tmp_path / "a.whl", whole), "0.2.0", tracked) == []
    wrong = {"tests/test_a.py": "", f"{info}/METADATA": "Name: sequencer2d\n\n"}
    found = release.wheel_problems(make_wheel(tmp_path / "b.whl", wrong), "0.2.0", tracked)
    assert [problem.removeprefix("b.whl ") for problem in found] == [
        "lacks sequencer2d/__init__.py",
        "holds tests/test_a.py, which git does not track",
        "holds no license",
        "has no description: the README is missing from its metadata",
    ]
    assert release.wheel_problems(tmp_path / "a.whl", "0.2.1", tracked) == ["a.whl is not version 0.2.1"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package of its own in a git repository, ready to be released as 0.2.0."""
    root = tmp_path / "checkout"
    (root / "sequencer2d").mkdir(parents=True)
    files = {
        "CHANGELOG.md": CHANGELOG,
        "README.md": "# A text\n",
        "LICENSE": "free\n",
        ".gitignore": "/dist/\n",
        "pyproject.toml": '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n[project]\n'
        'name = "sequencer2d"\nrequires-python = ">=3.10"\ndynamic = ["version"]\nreadme = "README.md"\n'
        'license-files = ["LICENSE"]\n'
        '[tool.hatch.version]\npath = "sequencer2d/__init__.py"\n',
        "sequencer2d/__init__.py": '__version__ = "0.2.0"\n',
        "sequencer2d/__main__.py": 'from sequencer2d import __version__\n\nprint("sequencer2d", __version__)\n',
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    for command in ("init -q", "config user.name a", "config user.email a@b.c", "add .", "commit -q -m first"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    monkeypatch.setattr(release, "ROOT", root)
    return root


def test_a_release_is_built_and_tagged_only_when_asked(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["0.2.0"]) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    assert release.git("tag") == ""
    assert sorted(path.name for path in (checkout / "dist").iterdir()) == [
        "sequencer2d-0.2.0-py3-none-any.whl",
        "sequencer2d-0.2.0.tar.gz",
    ]
    assert release.main(["0.2.0", "--tag"]) == 0
    assert release.git("tag", "--list", "--format=%(contents)") == "sequencer2d 0.2.0\n\n* New: one.\n* New: two."
    assert release.main(["0.2.0", "--tag"]) == 1
    assert "the tag v0.2.0 exists already" in capsys.readouterr().err


def test_a_changed_checkout_and_a_wrong_version_are_both_named(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "README.md").write_text("# Another\n", encoding="utf-8")
    (checkout / "sequencer2d" / "extra.py").write_text("", encoding="utf-8")
    assert release.main(["0.3.0", "--tag"]) == 1
    err = capsys.readouterr().err
    for problem in ("__init__.py says 0.2.0", "needs the date", "not committed", "is not version 0.3.0"):
        assert problem in err
    assert release.git("tag") == ""
    assert not (checkout / "dist").exists()
