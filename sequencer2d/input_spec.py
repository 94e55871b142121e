"""How images are prepared for a model, and the names of its classes: one description, in the terms of timm and ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
CropMode = Literal["center", "squash", "border"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FIELDS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""What timm's `pretrained_cfg` and our descriptions call alike."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The images that a model was made for.

    Attributes:
        in_chans: channels.
        size: height and width in pixels.
        mean, std: of each channel, whose values run from 0 to 1.
        interpolation: resampling, such as "bicubic".
        crop_pct: share of the resized image's side that the crop keeps.
        crop_mode: "center" (the middle is cut out), "squash" (the image is distorted) or "border" (it is padded).
        class_names: a name for each output; None where nobody knows.
        class_descriptions: words for each name, where names are identifiers such as WordNet's; otherwise None.
    """

    in_chans: int = 3
    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    class_names: tuple[str, ...] | None = None
    class_descriptions: tuple[str, ...] | None = None

    @classmethod
    def for_images(cls, in_chans: int, size: tuple[int, int], crop_pct: float = 0.875) -> "InputSpec":
        """The usual input: ImageNet's mean and std for 3 channels, 0.5 for any other number."""
        mean = IMAGENET_MEAN if in_chans == 3 else (0.5,) * in_chans
        std = IMAGENET_STD if in_chans == 3 else (0.5,) * in_chans
        return cls(in_chans=in_chans, size=size, mean=mean, std=std, crop_pct=crop_pct)

    @classmethod
    def from_timm(cls, cfg: Mapping[str, Any]) -> "InputSpec":
        """Read timm's `pretrained_cfg`, or what timm's `resolve_model_data_config` returns."""
        channels, height, width = cfg["input_size"]
        names = cfg.get("label_names")
        words: Mapping[str, str] = cfg.get("label_descriptions") or {}
        return cls(
            in_chans=channels,
            size=(height, width),
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            # timm trains with a random choice of two.
            interpolation="bicubic" if cfg["interpolation"] == "random" else cfg["interpolation"],
            crop_pct=cfg["crop_pct"],
            crop_mode=cfg.get("crop_mode") or "center",
            class_names=tuple(names) if names else None,
            class_descriptions=tuple(words.get(name, name) for name in names) if names and words else None,
        )

    def to_timm(self) -> dict[str, Any]:
        """The entries of timm's `pretrained_cfg`."""
        return {
            "input_size": (self.in_chans, *self.size),
            **{name: getattr(self, name) for name in FIELDS},
            "label_names": list(self.class_names) if self.class_names is not None else None,
            "label_descriptions": self._described(),
        }

    def _described(self) -> dict[str, str] | None:
        if self.class_names is None or self.class_descriptions is None:
            return None
        return dict(zip(self.class_names, self.class_descriptions, strict=True))

    def to_description(self) -> dict[str, Any]:
        """The entries of a checkpoint's description, plain JSON values.

        Another crop than the middle, and descriptions of classes, are named where there are some.
        """
        entries = {"size": list(self.size), **{name: getattr(self, name) for name in FIELDS}}
        entries |= {"mean": list(self.mean), "std": list(self.std)}
        if self.crop_mode == "center":
            del entries["crop_mode"]
        return {
            "in_chans": self.in_chans,
            "class_names": list(self.class_names) if self.class_names is not None else None,
            **({"class_descriptions": list(self.class_descriptions)} if self.class_descriptions is not None else {}),
            "input": entries,
        }

    def with_classes(self, description: Mapping[str, Any]) -> "InputSpec":
        """A copy with the names and the words of the classes that a checkpoint's description gives."""
        names, words = description.get("class_names"), description.get("class_descriptions")
        return replace(
            self,
            class_names=tuple(names) if names else None,
            class_descriptions=tuple(words) if names and words and len(words) == len(names) else None,
        )

    def updated(self, description: Mapping[str, Any]) -> "InputSpec":
        """A copy with what a checkpoint's description says of the input, without its classes. It may lack any entry.

        A mean or std for another number of channels is left out.
        """
        given = dict(description.get("input", {}))
        changes = {name: given[name] for name in ("interpolation", "crop_pct", "crop_mode") if name in given}
        changes |= {name: tuple(given[name]) for name in ("mean", "std") if len(given.get(name, ())) == self.in_chans}
        changes |= {"size": tuple(given["size"])} if "size" in given else {}
        return replace(self, **changes)
