"""How fast an exported artifact runs on this machine's CPU."""

from typing import Any

import torch

from sequencer2d.benchmark.timing import MEASURE_S, measure
from sequencer2d.errors import ConfigError
from sequencer2d.export.loaded import Artifact, DetectorArtifact


def time_artifact(
    artifact: Artifact, batch: int, size: tuple[int, int], *, measure_s: float = MEASURE_S
) -> dict[str, Any]:
    """Time an artifact on random images of `size` (height, width, pixels).

    Returns:
        A row of plain values: path, format, precision, batch, size, threads, images_per_s, latency_ms (median) and
        spread_percent (between the quartiles).

    Raises:
        ConfigError: another size than that of an exported detector.
    """
    if isinstance(artifact, DetectorArtifact) and size != artifact.only_size:
        height, width = artifact.only_size
        raise ConfigError(f"{artifact.path.name} takes images of {height}×{width} pixels alone: leave the size out")
    images = torch.randn(batch, artifact.in_chans, *size, generator=torch.Generator().manual_seed(0))
    timing = measure(lambda: artifact(images), torch.device("cpu"), measure_s=measure_s)
    return {
        "path": str(artifact.path),
        "format": artifact.kind,
        "precision": artifact.precision,
        "batch": batch,
        "size": list(size),
        "threads": torch.get_num_threads(),
        "images_per_s": 1000 * batch / timing.step_ms,
        "latency_ms": timing.latency_ms,
        "spread_percent": timing.spread_percent,
    }
