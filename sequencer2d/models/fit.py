"""Make a state dict fit a model where that is meant to work, and say exactly what does not fit where it is not."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sequencer2d.errors import CheckpointError
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.names import StateDict
from sequencer2d.models.variants import VARIANTS
from sequencer2d.nn.embed import resample_grid

if TYPE_CHECKING:
    from sequencer2d.models.sequencer2d import Sequencer2D

logger = logging.getLogger("sequencer2d")

Build = Callable[[ModelConfig, str], nn.Module]

STEM = "stem.proj.weight"
HEAD = ("head.fc.weight", "head.fc.bias")
POSITIONS = "pos_embed.weight"
_BLOCK = re.compile(r"stages\.(\d{1,4})\.blocks\.\d{1,4}\.norm1\.weight")


def fit_state(state: Mapping[str, Tensor], model: "Sequencer2D", source: str) -> StateDict:
    """Return `state` fitted to `model`, complete.

    Three things are adapted, each with a line in the log: a classifier for another number of classes is left out (the
    model keeps its own), a stem for 3 channels is adapted to the model's, a position embedding is resampled to the
    model's grid.

    Raises:
        CheckpointError: any other difference, naming the parameters.
    """
    target = model.state_dict()
    fitted = fit_positions(_fit_head(_fit_stem(dict(state), target, source), target, source), target, source)
    if problems := _differences(fitted, target):
        similar = identify(state, type(model))
        hint = f"; the file looks like {similar}" if similar and similar != model.variant else ""
        raise CheckpointError(f"{source} does not fit {model.variant or 'the model'}: {problems}{hint}")
    return fitted


def identify(state: Mapping[str, Tensor], build: Build) -> str | None:
    """Return the variant whose parameters have these names and shapes, or None.

    The image's channels, the classifier and the position grid may differ.

    Args:
        state: the tensors under our names.
        build: a model from its configuration and its variant, such as the class `Sequencer2D`.
    """
    shapes = _shapes(state)
    blocks = {name for name in shapes if name.endswith("norm1.weight")}
    for name, config in VARIANTS.items():
        if len(blocks) != sum(config.depths):
            continue
        with torch.device("meta"):
            candidate = _shapes(build(config, name).state_dict())
        if candidate == shapes:
            return name
    return None


def check_shapes(
    state: Mapping[str, Tensor], config: ModelConfig, name: str, source: str, build: Build, free: Collection[str] = ()
) -> None:
    """Compare a configuration with the tensors before a model is built from it. A hostile one may ask for any size.

    Args:
        state: the tensors.
        config: of the model to build.
        name: its variant.
        source: the file, for the message.
        build: as for `identify`.
        free: fields that the user has set, after which a position embedding may be resampled.

    Raises:
        CheckpointError: another number of blocks, or other sizes, than the tensors have.
    """
    found = _sizes(state)
    ratio, grid = found.pop("mlp_channels"), found.pop("grid")
    wanted = {field: getattr(config, field) for field in found}
    wanted["patch_sizes"] = (
        config.stem_kernel,
        *config.patch_sizes[1:],
    )  # kernels, which the stem's patches may overlap
    if ratio:
        found["mlp_ratio"], wanted["mlp_ratio"] = ratio, (int(config.mlp_ratio * config.dims[0]),)
    if grid and config.position_embedding and not {"img_size", "patch_sizes", "pad"} & set(free):
        found["img_size"], wanted["img_size"] = grid, config.grid(*config.img_size)
    for field, size in wanted.items():
        if size != found[field]:
            similar = identify(state, build)
            hint = f"; the file looks like {similar}" if similar and similar != name else ""
            raise CheckpointError(
                f"{source} does not fit {name}: {field} asks for {_shortened(size)}, its tensors have "
                f"{_shortened(found[field])}{hint}"
            )


def adapt_channels(weight_OIHW: Tensor, in_chans: int) -> Tensor:
    """Adapt a convolution for RGB to `in_chans` channels: summed for 1, otherwise repeated and scaled by 3 / in_chans.

    Both keep the output for an image whose channels are all the same gray, as timm does it.
    """
    if in_chans == 1:
        return weight_OIHW.sum(dim=1, keepdim=True)
    index = torch.arange(in_chans, device=weight_OIHW.device) % weight_OIHW.shape[1]
    return weight_OIHW[:, index] * (weight_OIHW.shape[1] / in_chans)


def _sizes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Read the architecture off the tensors: fields of `ModelConfig`, `mlp_channels`, the `grid` of positions."""
    blocks = Counter(int(match[1]) for name in state if (match := _BLOCK.fullmatch(name)))
    stages = sorted(blocks)

    def along(axis: int, *patterns: str) -> tuple[int, ...]:
        names = [pattern.format(stage) for stage in stages for pattern in patterns]
        return tuple(state[name].shape[axis] for name in names if name in state and state[name].ndim)

    rnn = "stages.{}.blocks.0.rnn_tokens.rnn"
    # A mixer with rnn_h alone scans rows alone.
    axis = "_v" if any(".rnn_v." in name for name in state) else "_h"
    return {
        "depths": tuple(blocks[stage] for stage in stages),
        "dims": along(0, "stages.{}.blocks.0.norm1.weight"),
        "hidden_dims": along(-1, f"{rnn}{axis}.weight_hh_l0", f"{rnn}.weight_hh_l0"),
        "patch_sizes": along(-1, STEM)[:1] + along(-1, "stages.{}.downsample.down.weight"),
        "mlp_channels": along(0, "stages.{}.blocks.0.mlp_channels.fc1.weight")[:1],
        "grid": tuple(state[POSITIONS].shape[1:3]) if POSITIONS in state else (),
    }


def _shortened(sizes: tuple[int, ...]) -> str:
    shown = ", ".join(str(size) if abs(size) < 10**9 else "10⁹ or more" for size in sizes[:6])
    return f"({shown}{', …' if len(sizes) > 6 else ''})"


def _fit_stem(state: StateDict, target: StateDict, source: str) -> StateDict:
    if STEM not in state or state[STEM].ndim != 4:
        return state
    given, wanted = state[STEM].shape[1], target[STEM].shape[1]
    if given == 3 and wanted != 3:
        logger.warning("%s: stem for 3 image channels adapted to %d", source, wanted)
        state[STEM] = adapt_channels(state[STEM], wanted)
    return state


def _fit_head(state: StateDict, target: StateDict, source: str) -> StateDict:
    given, wanted = _classes(state), _classes(target)
    if given == wanted:
        return state
    logger.warning("%s: classifier for %d classes left out, the model has %d", source, given, wanted)
    kept = {name: tensor for name, tensor in state.items() if name not in HEAD}
    return kept | {name: target[name] for name in HEAD if name in target}


def _classes(state: Mapping[str, Tensor]) -> int:
    present = [state[name].shape[0] for name in HEAD if name in state]
    return present[0] if present else 0


def fit_positions(state: StateDict, target: StateDict, source: str) -> StateDict:
    """Return `state` with its position embedding, if there is one, resampled to the grid of `target`."""
    if POSITIONS not in state or POSITIONS not in target or state[POSITIONS].ndim != 4:
        return state
    given, wanted = tuple(state[POSITIONS].shape[1:3]), tuple(target[POSITIONS].shape[1:3])
    if given != wanted:
        logger.warning("%s: position embedding resampled from %s to %s tokens", source, given, wanted)
        state[POSITIONS] = resample_grid(state[POSITIONS], *wanted)
    return state


def _differences(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    missing = [name for name in target if name not in state]
    unexpected = [name for name in state if name not in target]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(target[name].shape)}"
        for name in target
        if name in state and state[name].shape != target[name].shape
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return "; ".join(f"{what}: {_some(names)}" for what, names in parts.items() if names)


def _some(names: list[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in HEAD}
    if len(shapes.get(STEM, ())) == 4:
        shapes[STEM] = (shapes[STEM][0], *shapes[STEM][2:])
    if POSITIONS in shapes:
        shapes[POSITIONS] = shapes[POSITIONS][-1:]
    return shapes
