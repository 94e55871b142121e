"""A backbone for dense prediction: a model without its head, which returns the maps of chosen stages."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sequencer2d.models.sequencer2d import Backbone, Sequencer2D, check_layout, take_indices, to_layout


class FeatureInfo:
    """What the maps of a feature extractor are: `channels()`, `reduction()` (pixels per token), `module_name()`.

    Each gives a list over the maps, or for the stage `index` its value.
    """

    def __init__(self, info: list[dict[str, Any]], out_indices: tuple[int, ...]) -> None:
        self.info = info
        self.out_indices = out_indices

    def channels(self, index: int | None = None) -> Any:
        return self._get("num_chs", index)

    def reduction(self, index: int | None = None) -> Any:
        return self._get("reduction", index)

    def module_name(self, index: int | None = None) -> Any:
        return self._get("module", index)

    def _get(self, key: str, index: int | None) -> Any:
        return [self.info[i][key] for i in self.out_indices] if index is None else self.info[index][key]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


class Sequencer2DFeatures(Backbone):
    """Images (B, C, H, W) → the maps of chosen stages, a list in ascending order.

    Holds the parts of `model` that the maps need, under the same parameter names; stages after the last map are left
    out, and so are the head and, unless `norm`, the final norm.

    Args:
        model: the model to take apart; its modules are shared, not copied.
        out_indices: stages, as in `Sequencer2D.forward_intermediates`.
        output_fmt: "NCHW" or "NHWC".
        norm: apply the final norm to the last stage's map.

    Attributes:
        feature_info: a `FeatureInfo` of the maps. Strides of the paper's models are 7, 14, 14, 14: decoders must resize
            to a size, not by a factor of 2.

    Raises:
        ConfigError: an index or a layout that does not exist.
    """

    def __init__(
        self,
        model: Sequencer2D,
        out_indices: int | Sequence[int] | None = None,
        output_fmt: str = "NCHW",
        norm: bool = False,
    ) -> None:
        super().__init__()
        check_layout(output_fmt)
        chosen = tuple(sorted(take_indices(len(model.stages), out_indices)))
        self.config, self.variant, self.pretrained_cfg = model.config, model.variant, model.pretrained_cfg
        self.output_fmt = output_fmt
        self.out_indices = chosen
        self.feature_info = FeatureInfo(model.feature_info, chosen)
        self.stem = model.stem
        self.pos_embed = model.pos_embed
        self.stages = model.stages[: chosen[-1] + 1]
        self.norm: nn.Module = model.norm if norm and chosen[-1] == len(model.stages) - 1 else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        last = len(self.stages) - 1
        return [
            to_layout(self.norm(x) if index == last else x, self.output_fmt)
            for index, x in enumerate(self.run_stages(x_BCHW))
            if index in self.out_indices
        ]
