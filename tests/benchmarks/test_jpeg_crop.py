import json
from pathlib import Path

import pytest

from benchmarks import jpeg_crop


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision:DeprecationWarning")
def test_ways_of_decoding_a_crop_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    jpeg_crop.main(["--seconds", "0.02", "--output", str(tmp_path / "crop.json")])
    result = json.loads((tmp_path / "crop.json").read_text())
    rows = {row["way"]: row for row in result["rows"]}
    assert {"this package", "Pillow, whole image", "torchvision, whole image"} <= rows.keys()
    assert rows["this package"]["saved_of_worker"] == 0
    assert all(row["ms_per_image"] > 0 for row in rows.values())
    assert rows["Pillow, whole image"]["largest_difference"] == 0
    assert result["worker_ms"] > rows["this package"]["ms_per_image"]


def test_crops_lie_in_the_photo() -> None:
    boxes = jpeg_crop.draw_boxes(50)
    assert len(set(boxes)) == 50
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 375
