"""`sequencer2d models`: the table of variants."""

from __future__ import annotations

import argparse
from typing import Any

from sequencer2d import terminal
from sequencer2d.cli.common import add_json, console, positive
from sequencer2d.errors import ConfigError
from sequencer2d.terminal import plain_table

EPILOG = """\
examples:
  sequencer2d models                               all of them
  sequencer2d models 'sequencer2d_?'               the names that match
  sequencer2d models --image-size 448 --json       MACs at another size, which takes some seconds"""


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
        epilog=EPILOG,
    )
    parser.add_argument("filter", nargs="?", default="*", metavar="PATTERN", help="names to list, e.g. '*_s_*'")
    parser.add_argument(
        "--image-size",
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
    rows = [describe_model(name, arguments.image_size) for name in ours]
    peer_rows = [describe_peer(name) for name in peers]
    if arguments.json:
        terminal.write_json([*rows, *peer_rows])
        return 0
    if rows:
        _print_table(rows, f"GMACs at {arguments.image_size}²", ("strides", "blocks", "channels", "hidden"))
    if peer_rows:
        _print_table(peer_rows, "GMACs", ("size", "strides", "blocks", "channels"))
    return 0


def describe_model(name: str, size: int) -> dict[str, Any]:
    """One row: `parameters`, `macs` at `size`² pixels, and per stage `strides`, `blocks`, `channels`, `hidden`."""
    from sequencer2d.models import model_config
    from sequencer2d.models.variants import COSTS

    config = model_config(name)
    parameters, macs = COSTS[name]
    return {
        "name": name,
        "parameters": parameters,
        "macs": macs if config.img_size == (size, size) else _count_macs(name, size),
        "size": size,
        "strides": list(config.reductions),
        "blocks": list(config.depths),
        "channels": list(config.dims),
        "hidden": list(config.hidden_dims),
        "mixer": _mixer(config),
    }


def describe_peer(name: str) -> dict[str, Any]:
    """One row as `describe_model`'s, at the peer's own size: some take no other."""
    from sequencer2d.peers import peer_config
    from sequencer2d.peers.variants import COSTS

    config = peer_config(name)
    parameters, macs, strides = COSTS[name]
    return {
        "name": name,
        "parameters": parameters,
        "macs": macs,
        "size": config.img_size[0],
        "strides": list(strides),
        "blocks": list(config.depths),
        "channels": list(config.dims),
        "mixer": config.mixer,
    }


def _count_macs(name: str, size: int) -> int:
    """Multiply-accumulates at a size that the table does not hold."""
    import torch

    from sequencer2d.benchmark.cost import count_macs
    from sequencer2d.models import create_model

    with torch.device("meta"):  # no memory and no time for weights that nobody reads
        model = create_model(name)
    return count_macs(model, size)


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
