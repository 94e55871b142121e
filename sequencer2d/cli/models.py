"""`sequencer2d models`: the table of variants."""

from __future__ import annotations

import argparse
from typing import Any

from sequencer2d import terminal
from sequencer2d.cli.common import add_json, console, positive
from sequencer2d.errors import ConfigError
from sequencer2d.terminal import plain_table


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "models",
        help="list the models with parameters, MACs and strides",
        description=(
            "List the models. MACs are multiply-accumulates of one image, in billions (G), and include the "
            "recurrences, which most counters leave out. Strides are pixels per token after each stage, channels and "
            "blocks are given per stage; hidden is the number of hidden units of one scan. The mixer is the recurrent "
            "cell, its scans (down, up, right, left; flat: along all tokens as one sequence) and how they are fused. "
            "The paper's peers that no library holds stand below; models of timm are named timm:NAME everywhere."
        ),
    )
    parser.add_argument("filter", nargs="?", default="*", metavar="PATTERN", help="names to list, e.g. '*_s_*'")
    parser.add_argument(
        "--size",
        type=positive,
        default=224,
        metavar="PIXELS",
        help="side of the image that MACs are for (default: 224)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.models import list_models
    from sequencer2d.peers import list_peers

    ours, peers = list_models(arguments.filter), list_peers(arguments.filter)
    if not ours and not peers:
        known = ", ".join((*list_models(), *list_peers()))
        raise ConfigError(f"no model matches {arguments.filter!r}; there are: {known}")
    rows = [describe_model(name, arguments.size) for name in ours]
    peer_rows = [describe_peer(name) for name in peers]
    if arguments.json:
        terminal.write_json([*rows, *peer_rows])
        return 0
    if rows:
        _print_table(rows, f"GMACs at {arguments.size}²", ("strides", "blocks", "channels", "hidden"))
    if peer_rows:
        _print_table(peer_rows, "GMACs", ("size", "strides", "blocks", "channels"))
    return 0


def describe_model(name: str, size: int) -> dict[str, Any]:
    """One row: `parameters`, `macs` at `size`² pixels, and per stage `strides`, `blocks`, `channels`, `hidden`."""
    import torch

    from sequencer2d.benchmark.cost import count_macs, count_parameters
    from sequencer2d.models import create_model, model_config

    config = model_config(name)
    with torch.device("meta"):  # no memory and no time for weights that nobody reads
        model = create_model(name)
    return {
        "name": name,
        "parameters": count_parameters(model),
        "macs": count_macs(model, size),
        "size": size,
        "strides": list(config.reductions),
        "blocks": list(config.depths),
        "channels": list(config.dims),
        "hidden": list(config.hidden_dims),
        "mixer": _mixer(config),
    }


def describe_peer(name: str) -> dict[str, Any]:
    """One row as `describe_model`'s, at the peer's own size: some take no other."""
    import torch

    from sequencer2d.benchmark.cost import count_macs, count_parameters
    from sequencer2d.peers import build_peer

    with torch.device("meta"):
        model = build_peer(name)
    config = model.config
    strides = [info["reduction"] for info in model.feature_info]
    return {
        "name": name,
        "parameters": count_parameters(model),
        "macs": count_macs(model, config.img_size),
        "size": config.img_size[0],
        "strides": strides if len(config.depths) > 1 else strides[:1],
        "blocks": list(config.depths),
        "channels": list(config.dims),
        "mixer": config.mixer,
    }


def _mixer(config: Any) -> str:
    """The recurrence in a few signs, e.g. "lstm ↓↑→← concat"."""
    vertical, horizontal = ("↓↑", "→←") if config.bidirectional else ("↓", "→")
    scans = {
        "both": vertical + horizontal,
        "vertical": vertical,
        "horizontal": horizontal,
        "flatten": f"flat {horizontal}",
    }
    return f"{config.cell} {scans[config.axes]} {config.fusion if config.fusion != 'none' else 'unfused'}"


def _print_table(rows: list[dict[str, Any]], macs: str, columns: tuple[str, ...]) -> None:
    table = plain_table()
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column(macs, justify="right")
    for title in (*columns, "mixer"):
        table.add_column(title)
    for row in rows:
        cells = (row[key] if isinstance(row[key], list) else [row[key]] for key in columns)
        texts = [" ".join(map(str, cell)) for cell in cells]
        table.add_row(row["name"], f"{row['parameters'] / 1e6:.2f} M", f"{row['macs'] / 1e9:.2f}", *texts, row["mixer"])
    console().print(table)
