"""The recurrent layers that `benchmarks.recurrences` times: those of public projects, and a sweep over sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A layer that a project runs: which one, its rows, steps, input channels, hidden units and cell."""

    who: str
    rows: int
    steps: int
    channels: int
    hidden: int
    cell: str = "lstm"
    bidirectional: bool = True


SHAPES = (
    Shape("TF-GridNet, time", 195, 501, 128, 192),
    Shape("TF-GridNet, frequency", 1503, 65, 128, 192),
    Shape("SCNet, time", 560, 474, 128, 128),
    Shape("SCNet, frequency", 4740, 56, 128, 128),
    Shape("BSRNN, bands", 3008, 32, 128, 256),
    Shape("BSRNN, time", 256, 376, 128, 256),
    Shape("PyanNet", 32, 60, 293, 128),
    Shape("PyanNet, long", 32, 589, 256, 128),
    Shape("DPRNN", 256, 100, 128, 128),
    Shape("FlashRNN's", 16, 1024, 64, 64),
    Shape("FlashRNN's, 12 heads", 192, 1024, 64, 64),
    Shape("VSequencer-S", 64, 256, 384, 192),
    Shape("text line", 32, 128, 512, 256),
    Shape("text line, narrow", 64, 64, 64, 96),
    Shape("one axis of Sequencer2D-S", 256, 64, 96, 96),
    Shape("BandIt, bands", 4136, 64, 128, 256, "gru"),
    Shape("DPRNN as GRU", 256, 100, 128, 128, "gru"),
    Shape("DPRNN as RNN", 256, 100, 128, 128, "rnn"),
    Shape("DPRNN, one direction", 256, 100, 128, 128, "lstm", False),
    # Hidden units that are padded to what registers hold.
    Shape("TF-GridNet, time, 160 units", 195, 501, 128, 160),
    Shape("text line, 80 units", 64, 64, 64, 80),
)

# For the table of what "auto" takes: the numbers of rows at which the choice may change, by hidden units.
SWEEP = tuple(
    Shape("sweep", rows, 64, hidden, hidden, cell)
    for cell in ("lstm", "gru")
    for hidden in (256, 192, 128, 96, 64)
    for rows in (1, 16, 64, 256, 1024, 4096)
)
