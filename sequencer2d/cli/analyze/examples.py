"""Command lines that the help of each sub-verb of `analyze` shows: one row a sub-verb."""

EXAMPLES = {
    "erf": """\
sequencer2d analyze erf runs/tiny --images photos/
sequencer2d analyze erf runs/tiny timm:resnet50 --download --images photos/ --method energy paper""",
    "hidden-states": """\
sequencer2d analyze hidden-states runs/tiny --images photo.jpg
sequencer2d analyze hidden-states runs/tiny --images photo.jpg --block stages.1.blocks.0 --animate""",
    "memory": """\
sequencer2d analyze memory runs/tiny --images photos/
sequencer2d analyze memory random:sequencer2d_n trained@runs/tiny --images photos/ --limit 20""",
    "cka": """\
sequencer2d analyze cka runs/tiny --images photos/
sequencer2d analyze cka runs/tiny timm:deit_small_patch16_224.fb_in1k --images photos/ --limit 200""",
    "grad-cam": """\
sequencer2d analyze grad-cam runs/tiny --images photo.jpg
sequencer2d analyze grad-cam hf-hub:timm/sequencer2d_s.in1k --images photos/ --target 281""",
    "resolution": """\
sequencer2d analyze resolution runs/tiny --data photos/
sequencer2d analyze resolution runs/tiny --data digits --sizes 8 12 16 --limit 200""",
    "attack": """\
sequencer2d analyze attack runs/tiny --data photos/
sequencer2d analyze attack runs/tiny --data photos/ --preset radii --limit 500""",
    "shifted": """\
sequencer2d analyze shifted hf-hub:timm/sequencer2d_s.in1k --set imagenet-a --data imagenet-a/
sequencer2d analyze shifted hf-hub:timm/sequencer2d_s.in1k --set imagenet-r --data imagenet-r/ --common-classes""",
    "shape-texture": """\
sequencer2d analyze shape-texture hf-hub:timm/sequencer2d_s.in1k --images cue-conflict/
sequencer2d analyze shape-texture runs/tiny --data photos/ --limit 500""",
    "imagenet-c": """\
sequencer2d analyze imagenet-c hf-hub:timm/sequencer2d_s.in1k --data imagenet-c/
sequencer2d analyze imagenet-c runs/tiny --data imagenet-c/ --corruptions fog snow --limit 1000""",
    "corruptions": """\
sequencer2d analyze corruptions runs/tiny --data photos/ --limit 1000
sequencer2d analyze corruptions runs/tiny --data photos/ --corruptions fog snow --severities 1 3 5""",
    "figure1": """\
sequencer2d analyze figure1
sequencer2d analyze figure1 --accuracy s.json swin.json --output out     what `sequencer2d eval MODEL --json` wrote""",
    "figure3": """\
sequencer2d analyze figure3 --data imagenet/ --download
sequencer2d analyze figure3 --speed result.json          memory and throughput from `sequencer2d bench`""",
    "report": """\
sequencer2d analyze report runs/tiny --data photos/
sequencer2d analyze report runs/tiny runs/other --data photos/ --output report.html""",
    "app": """\
sequencer2d analyze app runs/tiny
sequencer2d analyze app hf-hub:timm/sequencer2d_s.in1k --port 8000""",
}


def epilog(name: str) -> str:
    """What stands below the options of a sub-verb."""
    return "examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[name].split("\n"))
