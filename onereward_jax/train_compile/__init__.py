"""Compile a training step ahead of time for a TPU topology that is not there: does it fit?

python -m onereward_jax.train_compile --config=configs/flux_fill_dev.py --topology=v5p:4x4x4
"""
