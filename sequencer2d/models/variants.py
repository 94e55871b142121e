"""All sizes of all variants, in one table. A variant is a row; any field of it can be overridden.

Three models are ours, for people with less compute. `sequencer2d_t` has the depths of S and 2/3 of its width,
`sequencer2d_n` half of its depths (rounded up) and half of its width; both keep D = C/4. `sequencer2d_n_p4` is N with
patches of 4 pixels, for small images: strides 4, 8, 8 and 8.
"""

import dataclasses
import fnmatch
from typing import Any

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.models.config import ModelConfig

_P7 = (7, 2, 1, 1)


def _row(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    hidden_dims: tuple[int, ...],
    patch_sizes: tuple[int, ...] = _P7,
    **options: Any,
) -> ModelConfig:
    return ModelConfig(depths=depths, dims=dims, hidden_dims=hidden_dims, patch_sizes=patch_sizes, **options)


_S = (4, 3, 8, 3), (192, 384, 384, 384)
_N = (2, 2, 4, 2), (96, 192, 192, 192), (24, 48, 48, 48)
_D1 = (48, 96, 96, 96)
_D2 = (96, 192, 192, 192)
_FLAT: dict[str, Any] = {"axes": "flatten", "fusion": "none"}
_VANILLA = (4, 3, 8, 3), (384,) * 4, (192,) * 4, (14, 1, 1, 1)

VARIANTS: dict[str, ModelConfig] = {
    # The paper's models (Table 1; L-wide is the authors' "d4_3x").
    "sequencer2d_s": _row(*_S, _D1),
    "sequencer2d_m": _row((4, 3, 14, 3), (192, 384, 384, 384), _D1),
    "sequencer2d_l": _row((8, 8, 16, 4), (192, 384, 384, 384), _D1),
    "sequencer2d_l_wide": _row((8, 8, 16, 4), (256, 512, 512, 512), (64, 128, 128, 128)),
    # Ours, smaller.
    "sequencer2d_t": _row((4, 3, 8, 3), (128, 256, 256, 256), (32, 64, 64, 64)),
    "sequencer2d_n": _row(*_N),
    "sequencer2d_n_p4": _row(*_N, patch_sizes=(4, 2, 1, 1)),
    # One BiLSTM over the flattened tokens (Table 2c).
    "vsequencer_s": _row(*_VANILLA, **_FLAT),
    "vsequencer_h_s": _row(*_S, _D2, **_FLAT),
    "vsequencer_pe_s": _row(*_VANILLA, **_FLAT, position_embedding=True),
    # Ablations of S (Tables 2a, 2b, 2d, 2e; "add" and "narrow" are of the authors' code).
    "sequencer2d_s_vertical": _row(*_S, _D2, axes="vertical", fusion="none"),
    "sequencer2d_s_horizontal": _row(*_S, _D2, axes="horizontal", fusion="none"),
    "sequencer2d_s_nofusion": _row(*_S, _D1, fusion="none"),
    "sequencer2d_s_add": _row(*_S, _D1, fusion="add"),
    "sequencer2d_s_unidirectional": _row(*_S, _D2, bidirectional=False),
    "sequencer2d_s_unidirectional_narrow": _row(*_S, _D1, bidirectional=False),
    "sequencer2d_s_h2x": _row(*_S, _D2),
    "sequencer2d_s_gru": _row(*_S, _D1, cell="gru"),
    "sequencer2d_s_rnn": _row(*_S, _D1, cell="rnn"),
}

COSTS: dict[str, tuple[int, int]] = {
    "sequencer2d_s": (27_651_688, 8_334_007_296),
    "sequencer2d_m": (38_307_688, 11_051_916_288),
    "sequencer2d_l": (54_298_216, 16_487_734_272),
    "sequencer2d_l_wide": (96_252_392, 29_298_511_872),
    "sequencer2d_t": (12_405_480, 3_710_511_104),
    "sequencer2d_n": (4_145_128, 1_184_853_504),
    "sequencer2d_n_p4": (4_135_624, 3_598_413_312),
    "vsequencer_s": (33_016_552, 8_325_159_936),
    "vsequencer_h_s": (27_645_544, 8_334_007_296),
    "vsequencer_pe_s": (33_114_856, 8_325_159_936),
    "sequencer2d_s_vertical": (27_645_544, 8_334_007_296),
    "sequencer2d_s_horizontal": (27_645_544, 8_334_007_296),
    "sequencer2d_s_nofusion": (25_433_704, 7_654_530_048),
    "sequencer2d_s_add": (26_545_768, 7_994_268_672),
    "sequencer2d_s_unidirectional": (29_863_528, 9_013_484_544),
    "sequencer2d_s_unidirectional_narrow": (20_991_592, 6_295_575_552),
    "sequencer2d_s_h2x": (45_395_560, 13_769_825_280),
    "sequencer2d_s_gru": (24_874_600, 7_484_660_736),
    "sequencer2d_s_rnn": (19_320_424, 5_785_967_616),
}
"""Parameters, and multiply-accumulates of one image of 224² pixels. Counting takes torch and seconds."""

HUB_WEIGHTS: dict[str, str] = {
    "sequencer2d_s": "timm/sequencer2d_s.in1k",
    "sequencer2d_m": "timm/sequencer2d_m.in1k",
    "sequencer2d_l": "timm/sequencer2d_l.in1k",
}
"""Published ImageNet-1K weights: variant → repository on the Hugging Face hub."""

TIMM_PREFIX = "s2d_"
"""In front of a variant's name in timm's registry."""

# Fields that start, regularize or speed up training and leave the function that the weights compute alone.
NOT_ARCHITECTURE = (
    "num_classes", "in_chans", "drop_rate", "proj_drop_rate", "drop_path_rate", "implementation", "gates", "conv_init",
)  # fmt: skip


def list_models(filter: str = "*") -> list[str]:
    """Return the names of the variants that match a shell pattern such as `"vsequencer*"`, in the table's order."""
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, filter)]


def model_config(name: str, **overrides: Any) -> ModelConfig:
    """Return the row `name` of the table of variants, with `overrides` of its fields.

    Raises:
        ConfigError: no such variant or field (close matches are listed), or a value that does not fit.
    """
    if name not in VARIANTS:
        raise ConfigError(f"no model {name!r}; {did_you_mean(name, VARIANTS)}")
    return VARIANTS[name].replace(**overrides)


def changed_options(config: ModelConfig, name: str) -> dict[str, Any]:
    """Return the fields by which the architecture differs from the row `name`, as plain JSON values."""
    row, given = dataclasses.asdict(VARIANTS[name]), dataclasses.asdict(config)
    changed = {key: value for key, value in given.items() if value != row[key] and key not in NOT_ARCHITECTURE}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}
