"""The tables of exported models and of low precision: differences from PyTorch, int8, speed on a CPU."""

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
    "cpu": CPU_COLUMNS,
    "cpu-amx": CPU_COLUMNS,
}
