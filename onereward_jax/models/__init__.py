"""The networks, as pure Linen modules with the parameter names of the original checkpoints."""
