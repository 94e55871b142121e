"""The report: what its summary and tables say, in which units, and what happens to a part that cannot be done."""

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from sequencer2d import __version__
from sequencer2d.analysis import report, report_parts
from sequencer2d.analysis.about import weights_text
from sequencer2d.analysis.report_page import _head, _table, _uncertainty, render
from sequencer2d.analysis.report_parts import PARTS, Limits, Part, Request, Section
from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError, DataError, InputError
from sequencer2d.evaluation.attacks import AttackSettings
from sequencer2d.evaluation.subject import Subject
from tests.analysis.drawn import attacks, corruptions
from tests.analysis.test_hidden_states import subject


class Photos:
    """Twelve images of noise in three classes, as a data source gives them."""

    class_names = ("a", "b", "c")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int):
        from PIL import Image

        pixels = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        return Image.fromarray(pixels), index % 3

    def describe(self, index: int) -> str:
        return f"photo {index}"


def request(**options: object) -> Request:
    values = {"limits": Limits(images=4, labeled=9), "common_only": False, "progress": None, **options}
    return Request(values.pop("subjects", (subject(),)), Photos(), **values)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert vars(Limits()) == {
        "images": 50, "labeled": 200, "severities": (1, 3, 5), "epsilons": (1 / 255, 4 / 255), "attack_steps": 5,
        "workers": 0,
    }  # fmt: skip


def test_the_head_says_on_what_it_rests(tmp_path: Path) -> None:
    model = subject()
    other = Subject("other", model.model, DataConfig(image_size=24), ("a", "b", "c"))
    wide = Subject("m<1>", model.model, DataConfig(image_size=(24, 48)), ("a", "b", "c"))
    parameters = sum(parameter.numel() for parameter in model.model.parameters()) / 1e6
    weights = tmp_path / "w.safetensors"
    weights.touch()
    os.utime(weights, (0, 86400 * 365))
    terms = list(_head(request(subjects=(wide, other)), [f"m@{weights}", "timm:other"], "photos, split val"))
    assert terms[:-1] == [
        ("model", f"m<1> (sequencer2d_n): {parameters:.1f} M parameters, 3 classes, images of 24×48 pixels"),
        ("weights", f"{weights}, 1971-01-01"),
        ("beside", f"other (sequencer2d_n): {parameters:.1f} M parameters, 3 classes, images of 24×24 pixels"),
        ("weights", "timm:other"),
        ("data", "photos, split val: 12 images in 3 classes; measured on 9, drawn with 4"),
        ("certainty", "a share of 9 images is uncertain by up to ±33 points (95 %)"),
    ]
    assert terms[-1][0] == "made"
    assert terms[-1][1].endswith(f" UTC, sequencer2d {__version__}")
    assert "measured on 12, drawn with 12" in dict(_head(request(limits=Limits()), (), ""))["data"]


def test_a_share_of_a_hundred_images_is_known_to_ten_points() -> None:
    assert _uncertainty(100) == pytest.approx(9.8)
    assert _uncertainty(400) == pytest.approx(4.9)


def test_a_table_has_its_titles_once_numbers_to_the_right_and_a_decimal() -> None:
    table = _table(
        [{"model": "m<", "share, %": 12.345, "images": 7}, {"model": "n", "share, %": math.inf, "images": 8}]
    )
    assert re.findall(r"<th[^>]*>[^<]*</th>", table) == [
        "<th>model</th>", '<th class="number">share, %</th>', '<th class="number">images</th>',
    ]  # fmt: skip
    assert re.findall(r"<td[^>]*>([^<]*)</td>", table) == ["m&lt;", "12.3", "7", "n", "–", "8"]
    assert table.count("<tr>") == 3
    assert _table([]) == ""


def test_a_page_escapes_names_and_links_to_each_section() -> None:
    named = Subject("<b>", subject().model, DataConfig(image_size=24), ("a", "b", "c"))
    sections = [
        ("One & two", Section("It says <this>.", (("image/png", b"\x89PNG"),), ({"x": 1.0},))),
        ("Three", Section("No.")),
    ]
    page = render(request(subjects=(named,)), sections)
    assert "<title>How &lt;b&gt; sees</title>" in page
    assert '<a href="#s0">One &amp; two</a><a href="#s1">Three</a>' in page
    assert '<section id="s0"><h2>One &amp; two</h2><p>It says &lt;this&gt;.</p>' in page
    assert '<div class="wide"><img alt="One &amp; two" src="data:image/png;base64,iVBORw=="></div>' in page
    assert '<section id="s1"><h2>Three</h2><p>No.</p></section>' in page
    assert "{" not in page.split("</style>")[1]


def test_the_parts_are_in_the_order_of_the_page() -> None:
    assert [part.title for part in PARTS] == [
        "Receptive fields", "Hidden states", "Reach of the memory", "Similarity of layers", "Evidence",
        "Other resolutions", "Corruptions and calibration", "Attacks", "Shape or texture",
    ]  # fmt: skip


def part(title: str) -> Part:
    return next(each for each in PARTS if each.title == title)


def test_corruptions_are_in_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement has tests of its own; here its result is given, and what it is asked for is checked."""
    asked = {}

    def measure(subjects, source, **options):
        asked.update(options)
        return corruptions()

    monkeypatch.setattr(report_parts, "compare_corruption_errors", measure)
    section = part("Corruptions and calibration").build(request(common_only=True))
    assert asked == {"severities": (1, 3, 5), "workers": 0, "limit": 9, "common_only": True, "progress": None}
    (row,) = section.rows
    assert row["model"] == "m"
    assert row["clean error, %"] == pytest.approx(12.5)
    assert row["mean error, %"] == pytest.approx(299.5 / 6)
    assert row["clean calibration error, %"] == pytest.approx(5)
    assert row["mean calibration error, %"] == pytest.approx(299.5 / 24)
    assert [kind for kind, _ in section.pictures] == ["image/png", "image/png"]


def test_attacks_take_the_limits_radii_and_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(subject, source, attack, settings, **options):
        asked.append((attack, settings, options["limit"]))
        epsilons = np.asarray(settings.epsilons)
        return type(RESULT)(**{**vars(RESULT), "attack": attack, "epsilons": epsilons, "accuracy": epsilons})

    monkeypatch.setattr(report_parts, "attack_accuracy", measure)
    part("Attacks").build(request())
    settings = AttackSettings(epsilons=(1 / 255, 4 / 255), steps=5, step_size=None)
    assert asked == [("fgsm", settings, 9), ("pgd", settings, 9)]


def attack_result():
    from sequencer2d.evaluation.attacks import AttackResult

    one = np.asarray([1 / 255])
    return AttackResult("m", "pgd", one, one, 0.5, 5, one, True, 9)


RESULT = attack_result()


def test_shape_or_texture_is_measured_on_the_labeled_images_in_percent() -> None:
    section = part("Shape or texture").build(request())
    (row,) = section.rows
    named = row["named the shape's class"] + row["the texture's"]
    assert row["images"] == named + row["neither"] == 9
    expected = 100 * row["named the shape's class"] / named if named else math.nan
    assert row["shape bias, %"] == pytest.approx(expected, nan_ok=True)
    assert (row["model"], len(row)) == ("small", 6)


def test_receptive_fields_count_their_crosses_and_leave_the_layout_out() -> None:
    section = part("Receptive fields").build(request())
    crosses = sum(row["cross?"] == "yes" for row in section.rows)
    assert f"Of {len(section.rows)} blocks of small, {crosses} see a cross" in section.text
    assert list(section.rows[0]) == [
        "model",
        "block",
        "row, %",
        "column, %",
        "cross, %",
        "arms over rest",
        "50 % in a square of, px",
        "90 %, px",
        "cross?",
    ]
    assert section.rows[0]["row, %"] + section.rows[0]["column, %"] > 50


def test_states_and_evidence_are_pictures_of_the_first_images() -> None:
    states = part("Hidden states").build(request())
    assert [kind for kind, _ in states.pictures] == ["image/png", "image/gif"]
    assert states.pictures[1][1].startswith(b"GIF89a")
    evidence = part("Evidence").build(request())
    assert "that small predicts" in evidence.text
    assert evidence.pictures[0][1].startswith(b"\x89PNG")


def test_models_without_recurrences_are_named_beside_those_that_have_them() -> None:
    from torch import nn

    plain = Subject("plain", nn.Conv2d(3, 3, 1), DataConfig(image_size=24), ("a", "b", "c"))
    section = part("Reach of the memory").build(request(subjects=(subject(), plain)))
    assert section.text.endswith("plain has no recurrences.")
    assert len(section.pictures) == 1
    with pytest.raises(ConfigError):
        part("Reach of the memory").build(request(subjects=(plain,)))


def failing(error: Exception):
    def build(request: Request) -> Section:
        raise error

    return build


def test_a_part_that_cannot_be_done_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = Part("Works", lambda request: Section("It works."))
    fails = Part("Fails", failing(InputError("too small")))
    monkeypatch.setattr(report, "PARTS", (fails, works))
    heard: list[str] = []
    path = report.write_report([subject()], Photos(), tmp_path / "r.html", on_part=heard.append)  # type: ignore[arg-type]
    text = path.read_text(encoding="utf-8")
    assert "<h2>Fails</h2><p>Not done: too small</p>" in text
    assert "<h2>Works</h2><p>It works.</p>" in text
    assert heard == ["Fails", "Works"]
    monkeypatch.setattr(report, "PARTS", (fails, fails))
    with pytest.raises(InputError, match="too small"):
        report.write_report([subject()], Photos(), tmp_path / "none.html")  # type: ignore[arg-type]
    monkeypatch.setattr(report, "PARTS", (works, Part("Breaks", failing(DataError("broken")))))
    with pytest.raises(DataError, match="broken"):
        report.write_report([subject()], Photos(), tmp_path / "none.html")  # type: ignore[arg-type]
    assert not (tmp_path / "none.html").exists()


def test_classes_that_do_not_match_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    other = Subject("other", subject().model, DataConfig(image_size=24), ("a", "b", "zebra"))
    heard: list[str] = []
    with pytest.raises(ConfigError, match="are not among the 3 of other"):
        report.write_report([subject(), other], Photos(), tmp_path / "r.html", on_part=heard.append)  # type: ignore[arg-type]
    assert heard == []


def test_attack_figures_are_drawn_by_their_function() -> None:
    assert len(attacks().axes) == 1


def test_weights_of_the_package_are_called_so() -> None:
    assert weights_text("sequencer2d_n_p4") == "weights that come with the package"
    assert weights_text("mine@hf-hub:timm/sequencer2d_s.in1k") == "hf-hub:timm/sequencer2d_s.in1k"
