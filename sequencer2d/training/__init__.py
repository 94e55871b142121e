"""Training: configuration, schedule, optimizer, loop, checkpoints and the log of a run."""
