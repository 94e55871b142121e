"""A process that trains: `python -m tests.training.run_from_json CONFIG.json`, alone or under torchrun.

`--slow SECONDS` waits after each step, so that a test can stop the run where it wants. `--fork N` is N processes that
share one import of torch, for runs that nobody stops. `--worlds FILE` notes there how many processes started together.
Exits with 75 if interrupted.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from sequencer2d.environment import launch
from sequencer2d.errors import Interrupted
from sequencer2d.training import loop
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import from_dict
from tests.processes import forked


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


if __name__ == "__main__":
    sys.exit(main())
