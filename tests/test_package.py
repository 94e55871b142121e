"""The package's public names, imported when they are first used."""

import subprocess
import sys
from pathlib import Path

import pytest

import sequencer2d
import sequencer2d.export
import sequencer2d.models
from sequencer2d.models import optimizing  # noqa: F401  (a submodule that was imported must not change the names)

PACKAGES = [sequencer2d, sequencer2d.models, sequencer2d.export]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_there(package):
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        assert callable(value) or name in ("__version__", "FORMATS"), name


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_submodule_hides_a_public_name(package):
    """Importing a submodule sets the package's attribute of its name, in place of what is imported lazily."""
    submodules = {path.stem for path in Path(package.__file__).parent.iterdir()}
    assert not submodules & set(package.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'sequencer2d' has no attribute 'sequencer3d'"):
        sequencer2d.sequencer3d  # noqa: B018


def test_the_operators_are_there_for_those_who_have_torch():
    _run("import torch, sequencer2d; torch.ops.sequencer2d.scan.default")


def test_the_operators_load_without_dynamo():
    """torch._dynamo takes seconds to import; only those who compile need it."""
    _run("import sys, torch, sequencer2d.ops; sys.exit('torch._dynamo' in sys.modules)")


def _run(code: str) -> None:
    """Run Python code in a process of its own, which must succeed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
