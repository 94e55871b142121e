"""A backbone for dense prediction: a model without its head, which returns the maps of chosen stages."""

from collections.abc import Sequence

from torch import Tensor, nn

from sequencer2d.models.sequencer2d import Backbone, Sequencer2D
from sequencer2d.nn.maps import check_layout, take_indices, to_layout

OF_CLASSIFIER = ("num_classes", "classifier", "label_names", "label_descriptions")
"""What a model's `pretrained_cfg` says of the part that a feature extractor lacks."""


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
        feature_info: timm's `FeatureInfo` of the maps: `channels()`, `reduction()` (pixels per token), `module_name()`,
            `get_dicts()`. Strides of the paper's models are 7, 14, 14, 14: decoders must resize
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
        from timm.models import FeatureInfo

        super().__init__()
        check_layout(output_fmt)
        chosen = tuple(sorted(take_indices(len(model.stages), out_indices)))
        self.config, self.variant, self.in_chans = model.config, model.variant, model.in_chans
        self.pretrained_cfg = {k: v for k, v in model.pretrained_cfg.items() if k not in OF_CLASSIFIER}
        self.output_fmt = output_fmt
        self.out_indices = chosen
        self.feature_info = FeatureInfo([dict(info) for info in model.feature_info], chosen)
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
