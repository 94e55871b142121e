"""Prepares a release: `./dev release VERSION` checks everything and changes nothing, `--tag` then tags it.

It checks the version, the changelog and the checkout, builds the source distribution and the wheel, compares the
wheel's files with git's and runs the command from it. If nothing is wrong, dist/ holds both files. It prints the
changelog's section, which becomes the tag's message. Pushing the tag and uploading dist/ are left to the person who
releases.
"""

import argparse
import email
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "sequencer2d"
FINAL = re.compile(r"\d+\.\d+\.\d+")
"""A version as this project gives them: three numbers."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./dev release", description=__doc__.split("\n", 1)[0])
    parser.add_argument("version", help="as in sequencer2d/__init__.py, for example 0.2.0")
    parser.add_argument("--tag", action="store_true", help="make the annotated tag if nothing is wrong")
    options = parser.parse_args(argv)
    version = options.version
    title, section = changelog_section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    problems = [
        *version_problems(version, (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")),
        *changelog_problems(version, title, section),
        *tree_problems(version),
    ]
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        problems += wheel_problems(wheel, version, tracked_files())
        problems += command_problems(wheel, version)
        if not problems:
            (ROOT / "dist").mkdir(exist_ok=True)
            for file in Path(folder).iterdir():
                (ROOT / "dist" / file.name).write_bytes(file.read_bytes())
    print(section)
    for problem in problems:
        print(f"release: {problem}", file=sys.stderr)
    if problems:
        return 1
    if not options.tag:
        print(f"\nNothing is wrong. dist/ holds the files; --tag makes the tag v{version}.")
        return 0
    message = f"{PACKAGE} {version}\n\n{section}"
    git("tag", "--annotate", f"v{version}", "--cleanup=verbatim", "--file=-", input=message)
    print(f"\nTagged v{version}. What is left: git push origin v{version}, and an upload of dist/.")
    return 0


def version_problems(version: str, init: str) -> list[str]:
    """What is wrong with the version itself, given the text of the package's `__init__.py`."""
    problems = []
    if not FINAL.fullmatch(version):
        problems.append(f"'{version}' is not of the form 1.2.3")
    stated = re.search(r'^__version__ = "(.*)"$', init, re.MULTILINE)
    if stated is None or stated[1] != version:
        problems.append(f"{PACKAGE}/__init__.py says {stated[1] if stated else 'no version'}: write {version} there")
    return problems


def changelog_section(text: str, version: str) -> tuple[str, str]:
    """The title of a version's section of the changelog, without `## `, and the text under it; "" if there is none."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        if title.split()[:1] == [version]:
            return title, body.strip()
    return "", ""


def changelog_problems(version: str, title: str, section: str) -> list[str]:
    """What is wrong with the version's section of the changelog."""
    if not section:
        return [f"CHANGELOG.md has no section '## {version} (YYYY-MM-DD)' with a text"]
    if not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", title):
        return [f"the title '## {title}' of CHANGELOG.md needs the date: '## {version} (YYYY-MM-DD)'"]
    return []


def tree_problems(version: str) -> list[str]:
    """What is wrong with the checkout: changes that are not committed, or a tag that exists."""
    problems = []
    if git("status", "--porcelain"):
        problems.append("the checkout has changes that are not committed")
    if git("tag", "--list", f"v{version}"):
        problems.append(f"the tag v{version} exists already")
    return problems


def tracked_files() -> set[str]:
    """The files of the package that git tracks, by their paths from the root."""
    return set(git("ls-files", PACKAGE).splitlines())


def build(folder: Path) -> Path:
    """Build the source distribution and, from it, the wheel; the wheel's path."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def wheel_problems(wheel: Path, version: str, tracked: set[str]) -> list[str]:
    """What the wheel lacks or has too much of: exactly the tracked files of the package, a license and its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"{PACKAGE}-{version}.dist-info"
        if f"{info}/METADATA" not in names:
            return [f"{wheel.name} is not version {version}"]
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    inside = {name for name in names if not name.startswith(f"{info}/")}
    problems = [f"{wheel.name} lacks {name}" for name in sorted(tracked - inside)]
    problems += [f"{wheel.name} holds {name}, which git does not track" for name in sorted(inside - tracked)]
    if not any(name.startswith(f"{info}/licenses/") for name in names):
        problems.append(f"{wheel.name} holds no license")
    if not str(metadata.get_payload()).strip():
        problems.append(f"{wheel.name} has no description: the README is missing from its metadata")
    return problems


def command_problems(wheel: Path, version: str) -> list[str]:
    """What goes wrong when the command runs from the unpacked wheel, outside of the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        command = [sys.executable, "-m", PACKAGE, "--version"]
        result = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, timeout=60
        )
    if result.returncode or version not in result.stdout.split():
        return [f"`sequencer2d --version` from the wheel says '{(result.stdout + result.stderr).strip()}'"]
    return []


def git(*arguments: str, input: str | None = None) -> str:
    """Run git in the checkout; what it prints."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, input=input, check=True, capture_output=True, text=True)
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
