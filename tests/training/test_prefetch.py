"""Batches reach a GPU in order, epoch after epoch in the same memory."""

import pytest
import torch

from sequencer2d.training.prefetch import to_device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_another_epoch_takes_no_more_memory():
    device = torch.device("cuda", torch.cuda.current_device())
    batch = (torch.zeros(64, 3, 128, 128, dtype=torch.uint8).pin_memory(), torch.arange(64).pin_memory())
    reserved = []
    for _ in range(6):
        for images, targets in to_device([batch] * 4, device):
            assert images.shape == batch[0].shape
            assert torch.equal(targets.cpu(), batch[1])
        reserved.append(torch.cuda.memory_reserved(device))
    assert reserved[-1] == reserved[1]
