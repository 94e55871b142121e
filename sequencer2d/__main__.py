"""`python -m sequencer2d`, and so `torchrun -m sequencer2d`."""

from sequencer2d.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
