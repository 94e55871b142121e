"""A process that trains: `python -m tests.training.run_from_json CONFIG.json`, alone or under torchrun.

`--slow SECONDS` waits after each step, so that a test can stop the run where it wants. Exits with 75 if interrupted.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from sequencer2d.errors import Interrupted
from sequencer2d.training import loop
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import from_dict


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--slow", type=float, default=0.0)
    arguments = parser.parse_args()
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
