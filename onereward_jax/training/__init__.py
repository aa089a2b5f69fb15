"""Training: jitted steps, train loop, state, checkpoints, metrics."""
