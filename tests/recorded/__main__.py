"""`python -m tests.recorded` records the package's defaults and tables anew."""

from tests import conftest  # noqa: F401  (imports the kernels for the interpreter)
from tests.recorded import record

record()
