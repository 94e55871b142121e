"""timm's own tests of models, run on ours: writes `benchmarks/results/timm-suite.json`.

    python -m benchmarks.timm_suite /checkouts/pytorch-image-models [ARGUMENT OF PYTEST ...]

The folder is a checkout of timm at the version that is installed, or its unpacked source distribution. Every test of
its `tests/test_models.py` that goes through timm's list of models is run, with our registered models in place of that
list. timm runs the tests of `AS_SEQUENCER` on its own Sequencers, and the others on its other backbones alone. Tests
that download weights run only with `--pretrained`, those of the paper's peers with `--models '*'`.
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import timm

from benchmarks.record import command_line, origin, write_result
from sequencer2d.models.timm_registry import PYRAMID, register_timm
from sequencer2d.models.variants import TIMM_PREFIX

NAME, SCRIPT = "timm-suite", "benchmarks.timm_suite"
AS_SEQUENCER = (
    "test_model_forward",
    "test_model_backward",
    "test_model_default_cfgs_non_std",
    "test_model_forward_torchscript",
    "test_model_forward_fx",
    "test_model_backward_fx",
    "test_model_forward_fx_torchscript",
)
"""The tests that timm runs on its own Sequencers, apart from downloads."""
SEQUENCERS = "*sequencer*"
DOWNLOADS = ("test_model_load_pretrained", "test_model_features_pretrained")


class OurModels:
    """A plugin of pytest: keeps the tests that were given one of our models, and notes how each ended."""

    def __init__(self, pretrained: bool) -> None:
        self.pretrained = pretrained
        self.outcomes: dict[str, dict[str, str]] = defaultdict(dict)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = [item for item in items if self.takes(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def takes(self, item: pytest.Item) -> bool:
        """Whether the test has one of our models, and its weights need no network."""
        test, model = _names(item.nodeid)
        return model.startswith(TIMM_PREFIX) and (self.pretrained or test not in DOWNLOADS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test, model = _names(report.nodeid)
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            self.outcomes[test][model] = "" if report.passed else str(crash.message if crash else report.longrepr)


def main(argv: list[str] | None = None) -> int:
    arguments, of_pytest = _parser().parse_known_args(argv)
    checkout = arguments.checkout.resolve()
    _check_version(checkout)
    register_timm()
    timm.list_models = _our_list(timm.list_models, f"{TIMM_PREFIX}{arguments.models}")
    suite = OurModels(arguments.pretrained)
    file, config = checkout / "tests" / "test_models.py", checkout / "pyproject.toml"
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--tb=line"]
    pytest.main([*options, "-c", str(config), "--rootdir", str(checkout), str(file), *of_pytest], plugins=[suite])
    rows = [_row(test, outcomes) for test, outcomes in suite.outcomes.items()]
    for row in rows:
        print(f"{row['test']}: {row['passed']} of {row['models']} pass")
    if of_pytest:
        print("nothing is written: arguments of pytest may leave tests out")
        return 0
    chosen = ["--models", arguments.models] if arguments.models != SEQUENCERS else []
    given = [*["--pretrained"] * arguments.pretrained, *chosen]
    command = command_line(SCRIPT, ["CHECKOUT", *given])
    path = write_result({**origin(NAME, SCRIPT, command), "rows": rows}, arguments.result)
    print(f"written to {path}")
    return 0


def _names(nodeid: str) -> tuple[str, str]:
    """(test, model) of a test's identifier, such as `test_models.py::test_model_forward[1-s2d_sequencer2d_s]`."""
    match = re.search(rf"::(\w+)(?:\[(?:[^\]]*-)?({TIMM_PREFIX}[\w.]+)\])?", nodeid)
    return (match[1], match[2] or "") if match else ("", "")


def _our_list(list_models: Any, pattern: str) -> Any:
    """timm's `list_models` of our models alone: all that match, unless it is asked for others by name."""

    def ours(filter: Any = "", module: Any = "", exclude_filters: Any = "", **options: Any) -> list[str]:
        of_sequencers = not filter or "sequencer2d_*" in filter
        # The names of pyramids make the same models with another stem.
        return list_models(pattern, exclude_filters=f"*{PYRAMID}", **options) if of_sequencers else []

    return ours


def _row(test: str, outcomes: dict[str, str]) -> dict[str, Any]:
    """One test's row: the first line of each kind of failure, with the number of models that it ended for."""
    failures: dict[str, int] = defaultdict(int)
    for message in filter(None, outcomes.values()):
        failures[message.strip().splitlines()[0]] += 1
    return {
        "test": test,
        "as_sequencer": test in AS_SEQUENCER,
        "models": len(outcomes),
        "passed": len(outcomes) - sum(failures.values()),
        "failures": dict(failures),
    }


def _check_version(checkout: Path) -> None:
    file = checkout / "timm" / "version.py"
    found = re.search(r"'([^']+)'", file.read_text(encoding="utf-8")) if file.is_file() else None
    if found is None:
        raise SystemExit(f"{checkout}: no checkout of timm, which has timm/version.py")
    if found[1] != timm.__version__:
        raise SystemExit(
            f"{checkout} is timm {found[1]}, installed is {timm.__version__}: check out v{timm.__version__}, "
            f"or unpack `pip download --no-deps --no-binary :all: timm=={timm.__version__}`"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a checkout of timm at the installed version")
    parser.add_argument("--models", default=SEQUENCERS, metavar="PATTERN", help=f"names; default: {SEQUENCERS}")
    parser.add_argument("--pretrained", action="store_true", help="run the tests that download weights, too")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
