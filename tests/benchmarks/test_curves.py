"""The comparison of loss curves pairs what has a seed or an implementation in common."""

import pytest

from benchmarks.kernels import curves


def test_pairs_with_the_same_seed_or_implementation_are_compared() -> None:
    flat = dict.fromkeys(range(8), 1.0)
    found = curves.compare(
        {
            ("triton", 0): flat,
            ("cudnn", 0): {step: value + (0.5 if step % 2 else -0.5) for step, value in flat.items()},
            ("triton", 1): {step: value + step for step, value in flat.items()},
        }
    )
    assert [(entry["same"], entry["curves"]) for entry in found] == [
        ("seed", ["triton, seed 0", "cudnn, seed 0"]),
        ("implementation", ["triton, seed 0", "triton, seed 1"]),
    ]
    assert found[0]["difference"] == pytest.approx(0.5)
    assert found[0]["last"] == pytest.approx(0.0)
    assert found[1]["difference"] == pytest.approx(3.5)
    assert found[1]["last"] == pytest.approx(6.5)
