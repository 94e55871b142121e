"""Gradients of one step in one process and in two: `python -m tests.training.two_processes FOLDER`.

Two forked processes share a batch as `ResumableSampler` hands it out, with and without accumulation. Each writes its
gradients, and how often they were exchanged, to FOLDER; the first also writes those of the whole batch alone.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from sequencer2d.environment import launch
from sequencer2d.training.assemble import build_model, build_step, resolve
from sequencer2d.training.distributed import Processes
from tests.training.conftest import configuration
from tests.training.run_from_json import forked

BATCH = 48
ACCUMULATIONS = (1, 3)


def gradients(here: Processes, accumulation: int) -> dict[str, object]:
    """Gradients of this process's share, flattened, and the number of exchanges."""
    fields = {
        "data.batch_size": BATCH,
        "data.erasing": 0.0,
        "model.drop_path_rate": 0.0,
        "optimizer.accumulation": accumulation,
    }
    config = resolve(configuration(Path("nowhere"), fields), 10)
    step = build_step(config, build_model(config, here.device), here)
    exchanges = [0]
    if here.world_size > 1:

        def counted(state, bucket):
            exchanges[0] += 1
            return allreduce_hook(state, bucket)

        step.wrapped.register_comm_hook(None, counted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the classifier starts at zero, which would hide the gradients of all else
        for parameter in step.model.get_classifier().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    images = torch.randint(0, 256, (BATCH, 3, 8, 8), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 10, (BATCH,), generator=generator)
    mine = slice(here.rank, None, here.world_size)
    step._accumulate(*step.prepare(images[mine], targets[mine], step=0))
    flat = torch.cat([parameter.grad.flatten() for parameter in step.model.parameters()])
    return {"gradients": flat, "exchanges": exchanges[0]}


def run(folder: Path) -> int:
    torch.set_num_threads(1)
    rank = launch().rank
    dist.init_process_group("gloo")
    cpu = torch.device("cpu")
    here = Processes(rank=rank, local_rank=rank, world_size=2, device=cpu)
    for accumulation in ACCUMULATIONS:
        torch.save(gradients(here, accumulation), folder / f"rank{rank}-{accumulation}.pt")
    dist.destroy_process_group()
    if rank == 0:
        alone = Processes(rank=0, local_rank=0, world_size=1, device=cpu)
        for accumulation in ACCUMULATIONS:
            torch.save(gradients(alone, accumulation), folder / f"alone-{accumulation}.pt")
    return 0


if __name__ == "__main__":
    sys.exit(forked(2, lambda: run(Path(sys.argv[1]))))
