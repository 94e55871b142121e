"""`sequencer2d analyze WHAT …`: how a model sees, and where it is strong. One module a group of sub-verbs."""

from __future__ import annotations

import argparse

from sequencer2d.cli.analyze import corrupted, pages, paper, robust, seeing

EPILOG = """\
MODEL is a checkpoint of ours (file, run folder, hf-hub:owner/name), timm:NAME (timm's published weights, which
--download fetches), timm:NAME=FILE (weights from a file), NAME=FILE (one of the paper's peers that `sequencer2d models`
lists) or random:NAME (untrained, any of them); LABEL@MODEL names it in tables, figures and file names.

examples:
  sequencer2d analyze erf runs/tiny timm:resnet50 --download --images photos/ --output out
  sequencer2d analyze corruptions runs/tiny --data tiny-imagenet --limit 1000
  sequencer2d analyze imagenet-c hf-hub:timm/sequencer2d_s.in1k --data imagenet-c/
  sequencer2d analyze figure1 --accuracy s.json swin.json --output out     what `sequencer2d eval MODEL --json` wrote
  sequencer2d analyze report runs/tiny --data tiny-imagenet --output report.html"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "analyze",
        help="receptive fields, hidden states, memory, similarity, resolution, robustness; a report and a page",
        description="See how a model sees: arrays (.npz), figures (.pdf, .svg, .png), tables.",
        epilog=EPILOG,
    )
    kinds = parser.add_subparsers(title="what to analyze", metavar="WHAT", required=True)
    for module in (seeing, robust, corrupted, paper, pages):
        module.add_parsers(kinds)
