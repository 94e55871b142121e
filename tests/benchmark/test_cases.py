"""Cases: which forms apply to which contenders and workloads."""

import pytest
import torch

from sequencer2d.benchmark import FORMS, PLANS, Plan, Sweep, available_forms
from sequencer2d.errors import ConfigError
from tests.benchmark.small import PEER, SMALL

EVERYTHING = Plan("?", (Sweep((SMALL, PEER), modes=("inference", "training"), batches=(2,)),))


def names(dtype: str, *forms: str) -> dict[str, tuple[str, ...]]:
    return {str(case): case.forms for case in EVERYTHING.cases([dtype], forms)}


def test_every_plan_names_models_that_exist() -> None:
    for plan in PLANS.values():
        assert plan.cases(["bf16"], ["eager"])


def test_the_optimized_form_is_for_inference_of_ours() -> None:
    assert names("fp32", "optimized") == {f"{SMALL}@auto, inference, fp32, batch 2, 224²": ("optimized",)}


def test_the_lean_form_is_for_training_of_every_model() -> None:
    assert names("bf16", "lean") == {
        f"{name}, training, bf16, batch 2, 224²": ("lean",) for name in (f"{SMALL}@auto", PEER)
    }


def test_the_papers_protocol_is_fp32_and_a_case_of_its_own() -> None:
    assert not names("bf16", "paper")
    found = [(str(case), case.forms) for case in EVERYTHING.cases(["fp32"], ["paper", "eager", "compile"])]
    assert found[:2] == [
        (f"{SMALL}@auto, inference, fp32, batch 2, 224²", ("eager", "compile")),
        (f"{SMALL}@auto, inference, fp32, batch 2, 224²", ("paper",)),
    ]
    assert len(found) == 2 * 2 * 2


def test_forms_that_take_long_or_trade_memory_for_time_are_measured_only_where_they_are_named() -> None:
    assert available_forms(torch.device("cuda")) == ("eager", "compile", "graph", "optimized")
    assert available_forms(torch.device("cpu")) == ("eager",)


def test_restrictions_say_what_a_form_is_for() -> None:
    assert {name: form.restriction for name, form in FORMS.items() if form.restriction} == {
        "optimized": "inference of ours",
        "lean": "training",
        "paper": "fp32",
    }


@pytest.mark.parametrize(
    "options, message",
    [
        ({"modes": ("test",)}, "no mode 'test'; there are inference, training"),
        ({"dtypes": ("int8",)}, "no dtype 'int8'; there are fp32, bf16, fp16"),
        ({"forms": ("fast",)}, "no form 'fast'; there are eager, compile"),
    ],
)
def test_an_unknown_part_of_a_workload_is_a_mistake(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan("?", (Sweep((SMALL,), **options),)).cases(["fp32"], ["eager"])
