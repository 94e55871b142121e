"""A process that trains: `python -m tests.training.run_from_json CONFIG.json`, alone or under torchrun.

`--slow SECONDS` waits after each step, so that a test can stop the run where it wants. `--fork N` is N processes that
share one import of torch, for runs that nobody stops. `--worlds FILE` notes there how many processes started together.
Exits with 75 if interrupted.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from sequencer2d.environment import launch
from sequencer2d.errors import Interrupted
from sequencer2d.training import loop
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import from_dict
from tests.training.kills import free_port


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--fork", type=int, default=1)
    parser.add_argument("--worlds", type=Path)
    arguments = parser.parse_args()
    if arguments.fork > 1:
        return forked(arguments.fork, lambda: train(arguments))
    return train(arguments)


def train(arguments: argparse.Namespace) -> int:
    if arguments.worlds and launch().rank == 0:
        with arguments.worlds.open("a") as file:
            file.write(f"{launch().world_size}\n")
    if arguments.slow:
        loop.RunAhead.mark = lambda self: time.sleep(arguments.slow)
    try:
        loop.train(from_dict(TrainConfig, json.loads(arguments.config.read_text())))
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 75
    return 0


def forked(processes: int, action: Callable[[], int]) -> int:
    """Run `action` in forked processes as torchrun starts them; the highest exit code."""
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    os.environ |= shared | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            code = 1
            try:
                code = action()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    sys.exit(main())
