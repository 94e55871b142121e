"""What the recurrences of a block put out (the paper's Figure 4): vertical, horizontal, and their fusion."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.blocks import find_block
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.evaluation.modes import eval_mode
from sequencer2d.evaluation.pixels import normalized
from sequencer2d.evaluation.subject import Subject
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops.scans import Scan

SCAN_NAMES = ("top to bottom", "bottom to top", "left to right", "right to left")


@dataclass(frozen=True)
class HiddenStates:
    """The states of one block's mixer for one image.

    Attributes:
        model: its name.
        block: its name within the model.
        image: (H, W, 3) uint8.
        states: (S, h, w, D) float32, the hidden states of each scan; `SCAN_NAMES[scans[s]]` says which way it ran.
        fused: (h, w, C) float32, the mixer's output: after the linear layer over all scans, where it has one.
        scans: which scans the mixer runs, see docs/design.md.
        flattened: the scans run over all tokens in raster order, not within rows.
    """

    model: str
    block: str
    image: np.ndarray
    states: np.ndarray
    fused: np.ndarray
    scans: tuple[int, ...]
    flattened: bool = False

    def save(self, path: str | Path) -> None:
        """Write everything as `.npz`."""
        save_arrays(path, image=self.image, states=self.states, fused=self.fused, scans=np.asarray(self.scans),
                    model=self.model, block=self.block, flattened=self.flattened)  # fmt: skip

    def rows(self) -> list[tuple[str, np.ndarray]]:
        """Titles and maps (h, w, channels) of the vertical LSTM's, the horizontal one's and the fusion's output.

        Those that the block does not have are left out.
        """
        rows = []
        for title, numbers in (("vertical", (0, 1)), ("horizontal", (2, 3))):
            slots = [slot for slot, scan in enumerate(self.scans) if scan in numbers]
            if slots:
                title = "flattened sequence" if self.flattened else title
                rows.append((title, np.concatenate([self.states[slot] for slot in slots], axis=2)))
        return [*rows, ("fusion", self.fused)]


def hidden_states(subject: Subject, image: np.ndarray, block: str | None = None) -> HiddenStates:
    """The hidden states of one block for one image.

    Args:
        subject: one of our models (timm's Sequencer checkpoints load as ours).
        image: uint8 (H, W, 3), of the size that the subject takes.
        block: the block, e.g. "stages.0.blocks.3"; by default the last one of the first stage, as in the paper.

    Raises:
        ConfigError: no such block, or one without recurrences.
        InputError: not such an image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"expected one image (height, width, 3) of uint8, got {image.shape} of {image.dtype}")
    name, mixer = find_mixer(subject.model, block)
    with torch.no_grad():
        tokens = mixer_inputs(subject.model, normalized(image[None], subject), [(name, mixer)])[name]
        states = mixer.scan(tokens)
        fused = mixer(tokens)
    per_scan = states[0].unflatten(-1, (len(mixer.scans), mixer.hidden_dim)).movedim(-2, 0)
    return HiddenStates(
        model=subject.name,
        block=name,
        image=image,
        states=per_scan.float().cpu().numpy(),
        fused=fused[0].float().cpu().numpy(),
        scans=mixer.scans,
        flattened=mixer.axes == "flatten",
    )


def most_active(maps: np.ndarray, count: int) -> np.ndarray:
    """The channels of (h, w, channels) that vary most over the grid, most first: at most `count` indices."""
    return np.argsort(maps.std(axis=(0, 1)))[::-1][:count]


def check_channels(channels: list[int], available: int) -> None:
    """Raise `ConfigError` for a channel that does not exist."""
    wrong = [channel for channel in channels if not 0 <= channel < available]
    if wrong:
        raise ConfigError(f"no channel {wrong[0]}: this block has channels 0 to {available - 1}")


def running_states(states: HiddenStates) -> Iterator[np.ndarray]:
    """The scans at work: after each step, (S, h, w, D) with nan where a scan has not been yet."""
    _, height, width, _ = states.states.shape
    steps = max(height, width) if not states.flattened else height
    for step in range(1, steps + 1):
        frame = np.full_like(states.states, np.nan)
        for slot, scan in enumerate(map(Scan.numbered, states.scans)):
            axis = 0 if states.flattened else scan.axis
            done = min(step, frame.shape[1 + axis])
            part = slice(frame.shape[1 + axis] - done, None) if scan.reverse else slice(None, done)
            index = (slot, part) if axis == 0 else (slot, slice(None), part)
            frame[index] = states.states[index]
        yield frame


def mixers(model: nn.Module) -> list[tuple[str, RNN2D]]:
    """The recurrent mixers of a model by the name of their block, in order. Raises `ConfigError` if it has none."""
    found = [(name.rpartition(".")[0], module) for name, module in model.named_modules() if isinstance(module, RNN2D)]
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no recurrent mixer of ours: hidden states and memory exist for Sequencers; "
            "timm's Sequencer checkpoints load as ours (give the file itself)"
        )
    return found


def find_mixer(model: nn.Module, block: str | None) -> tuple[str, RNN2D]:
    """The mixer of one block; by default that of the last block of the first stage. Raises `ConfigError`."""
    known = mixers(model)
    if block is None:
        first = known[0][0].rpartition(".")[0]
        return [pair for pair in known if pair[0].rpartition(".")[0] == first][-1]
    for name, mixer in known:
        if block in (name, f"{name}.rnn_tokens"):
            return name, mixer
    find_block(model, block)
    raise ConfigError(f"{block!r} has no recurrences; blocks that do: {', '.join(name for name, _ in known)}")


def mixer_inputs(model: nn.Module, images: Tensor, wanted: list[tuple[str, RNN2D]]) -> dict[str, Tensor]:
    """What goes into each mixer, (B, h, w, C) by block, for normalized images (B, 3, H, W)."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0]

        return hook

    handles = [mixer.register_forward_pre_hook(keep(name)) for name, mixer in wanted]
    try:
        with eval_mode(model), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return inputs
