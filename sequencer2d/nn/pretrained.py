"""What timm knows a model's weights by."""

from typing import Any


class PretrainedConfigured:
    """A model with `pretrained_cfg`: what timm says of its weights and of the images that they take."""

    pretrained_cfg: dict[str, Any]

    @property
    def default_cfg(self) -> dict[str, Any]:
        """`pretrained_cfg` under its older name in timm."""
        return self.pretrained_cfg

    @default_cfg.setter
    def default_cfg(self, cfg: dict[str, Any]) -> None:
        self.pretrained_cfg = cfg
