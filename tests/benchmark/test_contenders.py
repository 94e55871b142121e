"""Contenders: what their names mean, and that equal architectures get equal weights."""

import pytest
import torch

from sequencer2d.benchmark import contenders, parse_contender
from sequencer2d.errors import ConfigError
from tests.benchmark.small import SIZE, SMALL


@pytest.mark.parametrize(
    "text, expected",
    [
        ("sequencer2d_n", ("sequencer2d_n", "sequencer2d", "auto")),
        ("sequencer2d_n@reference", ("sequencer2d_n", "sequencer2d", "reference")),
        ("timm:sequencer2d_s", ("sequencer2d_s", "timm", "timm")),
        ("timm:sequencer2d_s@fuse", ("sequencer2d_s", "timm", "fuse")),
        ("swin_tiny", ("swin_tiny_patch4_window7_224", "timm", "timm")),
        ("resnet50", ("resnet50", "timm", "timm")),
        ("gfnet_h_s", ("gfnet_h_s", "peers", "plain")),
    ],
)
def test_a_contender_is_named_by_model_and_implementation(text: str, expected: tuple[str, str, str]) -> None:
    contender = parse_contender(text)
    assert (contender.model, contender.library, contender.implementation) == expected


@pytest.mark.parametrize(
    "text, hint",
    [
        ("convnxt_tiny", "did you mean convnext_tiny"),
        ("sequencer2d_n@cuda", "no implementation 'cuda'; there are"),
        ("resnet50@fuse", "only timm's Sequencer models"),
        ("timm:resnet50@cudnn", "as timm:resnet50@fuse"),
    ],
)
def test_an_unknown_contender_is_a_mistake(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse_contender(text)


@pytest.mark.parametrize(
    "text, family",
    [
        ("sequencer2d_s", "Seq."),
        ("timm:sequencer2d_s", "Seq."),
        ("vsequencer_s", "Seq."),
        ("regnety_040", "CNN"),
        ("swin_tiny", "Trans."),
        ("poolformer_s24", "LMLP"),
        ("mixer_b16", "GMLP"),
        ("gfnet_h_s", "FFT"),
        ("test_vit", "other"),
    ],
)
def test_families_are_the_papers(text: str, family: str) -> None:
    assert parse_contender(text).family == family


def test_all_implementations_get_the_same_weights_and_a_head_that_is_not_zero() -> None:
    first, second = (contenders.build(parse_contender(f"{SMALL}@{name}"), SIZE) for name in ("auto", "reference"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    assert first.get_submodule("head.fc").weight.std().item() == pytest.approx(contenders.HEAD_STD, rel=0.05)
