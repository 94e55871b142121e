"""What `analyze` writes never takes the place of another model's output."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer2d.cli.analyze.outputs import META, check_page
from tests.cli.conftest import Outcome, save_tiny

pytest.importorskip("matplotlib")


def test_no_output_overwrites_another_models(
    command: Callable[..., Outcome], mistake: Callable[..., str], tiny: Path, images: Path, tmp_path: Path
) -> None:
    other = save_tiny(tmp_path / "other.safetensors")
    out = ("--images", images / "a.png", "--output", tmp_path / "out", "--formats", "png")
    command("analyze", "erf", tiny, *out)
    command("analyze", "erf", f"label@{tiny}", *out)
    said = mistake("analyze", "erf", other, *out)
    assert f"erf.* would be overwritten, whose model is {tiny}" in said
    assert "--name" in said
    command("analyze", "erf", other, *out, "--name", "erf-other")
    command("analyze", "hidden-states", other, *out)
    (tmp_path / "out" / "models.json").unlink()
    assert "whose model is not known" in mistake("analyze", "erf", tiny, *out)


def test_no_report_overwrites_another_models(mistake: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html>mine</html>")
    data = ("--data", "digits", "--split", "test", "--output", page)
    assert "would be overwritten, which is about something else" in mistake("analyze", "report", tiny, *data)
    page.write_text(f'<meta name="{META}" content="/runs/a/best.safetensors">')
    assert "which is about /runs/a/best.safetensors" in mistake("analyze", "report", tiny, *data)
    page.write_text(f'<meta name="{META}" content="{tiny}">')
    check_page(page, [str(tiny)])
