"""The tables of docs/analysis.md."""

from benchmarks.columns import Column, fixed, millions, minutes, percent

_FIELDS = (
    Column("model", "model"),
    Column("block", "block"),
    Column("row_share", "row", percent),
    Column("column_share", "column", percent),
    Column("cross_share", "cross", percent),
    Column("arm_ratio", "arms over rest", fixed(1)),
    Column("side_50", "50 % in a square of, px", fixed(1)),
    Column("side_90", "90 %, px", fixed(1)),
    Column("cruciform", "a cross?", lambda value: "yes" if value else "no"),
)

ANALYSIS_TABLES = {
    "analysis-models": (
        Column("model", "model"),
        Column("parameters", "parameters", millions),
        Column("epochs", "epochs"),
        Column("top1_percent", "val top-1, %", fixed(2)),
        Column("top5_percent", "top-5, %", fixed(2)),
        Column("seconds", "time, evaluation included", minutes),
    ),
    "analysis-erf": _FIELDS,
    "analysis-erf-beside-convnext": _FIELDS,
    "analysis-memory": (
        Column("block", "block"),
        Column("direction", "direction"),
        Column("half_life_tokens", "half-life (median unit), tokens", fixed(2)),
        Column("half_life_tokens_10", "10 %", fixed(2)),
        Column("half_life_tokens_90", "90 %", fixed(2)),
        Column("half_life_pixels", "median, pixels", fixed(1)),
    ),
    "analysis-resolution": (
        Column("model", "model"),
        Column("size_pixels", "side, pixels"),
        Column("top1_percent", "top-1, %", fixed(1)),
        Column("relative_percent", "of native, %", fixed(1)),
    ),
    "analysis-robustness": (
        Column("model", "model"),
        Column("images", "images"),
        Column("clean_error_percent", "clean error, %", fixed(1)),
        Column("mean_error_percent", "mean error under corruption, %", fixed(1)),
        Column("clean_calibration_percent", "clean calibration error, %", fixed(1)),
        Column("mean_calibration_percent", "under corruption, %", fixed(1)),
    ),
    "analysis-attacks": (
        Column("model", "model"),
        Column("attack", "attack"),
        Column("steps", "steps"),
        Column("epsilon_levels", "ε, of 255", fixed(1)),
        Column("top1_percent", "top-1, %", fixed(1)),
        Column("clean_top1_percent", "clean, %", fixed(1)),
    ),
    "analysis-shape-texture": (
        Column("model", "model"),
        Column("images", "images"),
        Column("shape", "shape"),
        Column("texture", "texture"),
        Column("other", "neither"),
        Column("shape_bias_percent", "shape bias, %", fixed(1)),
    ),
}
