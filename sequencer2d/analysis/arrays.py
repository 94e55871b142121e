"""Arrays on disk: `.npz` files with plain arrays, numbers and strings, written atomically."""

from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.errors import ConfigError
from sequencer2d.files import atomic_write


def save_arrays(path: str | Path, **values: Any) -> None:
    """Write arrays, numbers and strings to a compressed `.npz`; nothing in it is pickled."""
    if Path(path).suffix != ".npz":
        raise ConfigError(f"arrays are written to .npz files, not to {path}")
    arrays = {name: np.asarray(value) for name, value in values.items()}
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
