"""The benchmark of the input: a row a case, as the table takes it."""

import json

from benchmarks import input as script
from benchmarks.tables import table


def test_each_case_has_a_row_with_every_column(tmp_path, monkeypatch):
    small = [case._replace(photo=(40, 30) if case.recipe == "imagenet_s" else (8, 8)) for case in script.CASES]
    monkeypatch.setattr(
        script, "CASES", [case._replace(fields={**case.fields, "data.image_size": "8"}) for case in small]
    )
    path = tmp_path / "input.json"
    script.main(["--batch", "4", "--workers", "1", "--seconds", "0.01", "--output", str(path)])
    result = json.loads(path.read_text())
    here = [case.title for case in script.CASES if "data.augment_on" not in case.fields]
    assert [row["case"] for row in result["rows"]] == here
    assert all(row["worker_ms"] > 0 and row["images_per_second"] > 0 for row in result["rows"])
    assert len(table(script.INPUT_COLUMNS, result["rows"]).splitlines()) == 2 + len(here)
