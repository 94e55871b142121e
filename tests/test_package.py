"""The package's public names, imported when they are first used."""

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
