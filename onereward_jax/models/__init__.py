"""The networks, as pure Linen modules with the parameter names of their originals."""
