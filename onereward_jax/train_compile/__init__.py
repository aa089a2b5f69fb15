"""Compile a training step ahead of time for TPUs or GPUs that you do not have: does it fit?

python -m onereward_jax.train_compile --config=configs/flux_fill_dev.py --topology=v5p:4x4x4
"""
