"""Jitted steps of every stage that trains, and what surrounds them: loop, state, checkpoints."""
