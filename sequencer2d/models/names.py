"""Parameter names: ours are timm's; the authors' published files use others. State dict → state dict.

| ours and timm's | the authors' |
|---|---|
| `stages.{s}.blocks.{b}.*` | `blocks.{s}.{b}.*` |
| `stages.{s}.downsample.down.*` | `blocks.{s−1}.{number of blocks in stage s−1}.down.*` |
| `head.fc.*` | `head.*` |
| `pos_embed.weight` | `absolute_pos_embed` |
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sequencer2d.errors import CheckpointError

StateDict = dict[str, Tensor]

_AUTHORS_DOWN = re.compile(r"^blocks\.(\d{1,4})\.\d{1,4}\.down\.")
_AUTHORS_BLOCK = re.compile(r"^blocks\.(\d{1,4})\.(\d{1,4})\.")
_OUR_BLOCK = re.compile(r"^stages\.(\d{1,4})\.blocks\.(\d{1,4})\.")
_OUR_DOWN = re.compile(r"^stages\.(\d{1,4})\.downsample\.down\.")
_OUTSIDE_STAGES = {
    "head.weight": "head.fc.weight",
    "head.bias": "head.fc.bias",
    "absolute_pos_embed": "pos_embed.weight",
}
"""The authors' names → ours, for parameters outside the stages."""
_OURS_OUTSIDE = {ours: theirs for theirs, ours in _OUTSIDE_STAGES.items()}
_WRAPPERS = ("module.", "_orig_mod.", "timm_model.")


def is_authors(state: Mapping[str, Any]) -> bool:
    """Whether the names are those of the authors' files."""
    # GFNet's blocks are numbered alike; what a block of Sequencer's has beside the number is its recurrent mixer.
    return any(_AUTHORS_BLOCK.match(name) and ".rnn_tokens." in name for name in state)


def from_authors(state: Mapping[str, Tensor]) -> StateDict:
    """Rename the authors' parameters to ours."""
    return _rename(state, _name_from_authors)


def to_authors(state: Mapping[str, Tensor]) -> StateDict:
    """Rename our parameters to the authors'."""
    blocks = {match.groups() for name in state if (match := _OUR_BLOCK.match(name))}
    depths = Counter(int(stage) for stage, _ in blocks)
    return _rename(state, lambda name: _name_to_authors(name, depths))


def strip_wrappers(state: Mapping[str, Tensor]) -> StateDict:
    """Remove from all names what DistributedDataParallel, torch.compile and transformers put in front of them."""
    names = dict(state)
    while prefix := next((p for p in _WRAPPERS if names and all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    return names


def _name_from_authors(name: str) -> str:
    if match := _AUTHORS_DOWN.match(name):
        return f"stages.{int(match[1]) + 1}.downsample.down.{name[match.end() :]}"
    return _OUTSIDE_STAGES.get(name, _AUTHORS_BLOCK.sub(r"stages.\1.blocks.\2.", name))


def _name_to_authors(name: str, depths: Mapping[int, int]) -> str:
    if match := _OUR_DOWN.match(name):
        stage = int(match[1]) - 1
        return f"blocks.{stage}.{depths[stage]}.down.{name[match.end() :]}"
    return _OURS_OUTSIDE.get(name, _OUR_BLOCK.sub(r"blocks.\1.\2.", name))


def _rename(state: Mapping[str, Tensor], rename: Callable[[str], str]) -> StateDict:
    renamed = {rename(name): tensor for name, tensor in state.items()}
    if len(renamed) != len(state):
        twice = [name for name, count in Counter(map(rename, state)).items() if count > 1]
        raise CheckpointError(f"two parameters of the checkpoint have the same meaning: {', '.join(twice[:5])}")
    return renamed
