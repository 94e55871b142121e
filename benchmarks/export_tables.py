"""The tables of exported models and of low precision: differences from PyTorch, int8, fp8, speed on a CPU."""

from benchmarks.columns import Column, fixed


def scientific(value: float) -> str:
    """Two digits and an exponent; an exact 0 as 0."""
    return f"{value:.1e}" if value else "0"


CPU_COLUMNS = (
    Column("model", "model"),
    Column("form", "form"),
    Column("threads", "threads"),
    Column("batch", "batch"),
    Column("milliseconds", "ms", fixed(1)),
    Column("images_per_second", "images/s", fixed(1)),
    Column("rate_over_timm_eager", "over timm", fixed(2)),
    Column("gmacs_per_second", "GMAC/s", fixed(1)),
    Column("macs_over_peer", "MACs over ConvNeXt-T", fixed(2)),
    Column("relative_difference", "difference from eager fp32", scientific),
    Column("error", "error"),
)

EXPORT_TABLES = {
    "export": (
        Column("format", "format"),
        Column("variant", "variant"),
        Column("224x224_1", "224², 1", scientific),
        Column("224x224_5", "224², 5", scientific),
        Column("392x392_1", "392², 1", scientific),
        Column("392x392_5", "392², 5", scientific),
        Column("288x320_1", "288×320, 1", scientific),
        Column("288x320_5", "288×320, 5", scientific),
        Column("images", "photographs", scientific),
        Column("recurrent_nodes_per_block", "recurrent nodes a block", fixed(0)),
        Column("nodes", "nodes"),
        Column("error", "error"),
    ),
    "int8": (
        Column("precision", "arithmetic"),
        Column("top1_percent", "top-1, %", fixed(2)),
        Column("top1_change_points", "change, points", fixed(2)),
        Column("cross_entropy", "cross entropy, nats", fixed(4)),
        Column("images", "images"),
        Column("size_mib", "file, MiB", fixed(1)),
        Column("speedup_1", "speed-up, batch 1", fixed(2)),
        Column("speedup_8", "speed-up, batch 8", fixed(2)),
    ),
    "fp8": (
        Column("form", "form"),
        Column("arithmetic", "arithmetic"),
        Column("in_fp8", "products in fp8"),
        Column("macs_share", "of all MACs", fixed(2)),
        Column("ms", "ms", fixed(2)),
        Column("images_per_second", "images/s", fixed(0)),
        Column("over_bf16", "over bf16", fixed(2)),
        Column("over_optimize", "over optimize, bf16", fixed(2)),
        Column("relative_difference", "difference from optimize, bf16", scientific),
        Column("error", "error"),
    ),
    "fp8-products": (
        Column("product", "product"),
        Column("layers", "layers"),
        Column("m", "M, tokens"),
        Column("k", "K"),
        Column("n", "N"),
        Column("macs_share", "of all MACs", fixed(2)),
        Column("bf16_ms", "bf16, ms", fixed(3)),
        Column("rows_ms", "fp8 by rows, ms", fixed(3)),
        Column("rows_quantizing_ms", "quantizing, ms", fixed(3)),
        Column("tensor_ms", "fp8 by tensor, ms", fixed(3)),
        Column("tensor_quantizing_ms", "quantizing, ms", fixed(3)),
        Column("rows_speedup", "by rows over bf16", fixed(2)),
        Column("rows_quantizing_speedup", "quantizing", fixed(2)),
    ),
    "fp8-accuracy": (
        Column("model", "model"),
        Column("images", "images"),
        Column("form", "form"),
        Column("arithmetic", "arithmetic"),
        Column("in_fp8", "products in fp8"),
        Column("top1_percent", "top-1, %", fixed(2)),
        Column("top1_change_points", "change from bf16, points", fixed(2)),
        Column("cross_entropy", "cross entropy, nats", fixed(4)),
        Column("largest_difference", "largest difference from fp32", scientific),
    ),
    "cpu": CPU_COLUMNS,
    "cpu-amx": CPU_COLUMNS,
}
