"""What all tests share: no network, no window, the same random numbers, and the marker for GPUs."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

if not torch.cuda.is_available():
    # The kernels' tests run in Triton's interpreter. Triton reads this when first imported, which any test may do.
    os.environ["TRITON_INTERPRET"] = "1"
# The tests are small: more threads only wait for each other, and pytest-xdist starts one process a core.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)
