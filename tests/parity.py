"""Comparing our networks with their originals in torch."""

from __future__ import annotations

import pathlib

import jax
import numpy as np

from onereward_jax.convert import Layout, load_params


def relative_error(found, expected) -> float:
    """The largest error, as a part of the largest value expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def gradient_of(oracle, folder: pathlib.Path, params, layout: Layout):
    """torch's gradients as a tree like `params`: they travel in the folder format of weights."""
    for parameter in oracle.parameters():
        parameter.data, parameter.grad = parameter.grad, parameter.data
    oracle.save_pretrained(folder)
    for parameter in oracle.parameters():
        parameter.data, parameter.grad = parameter.grad, None
    return load_params(folder, jax.eval_shape(lambda: params), layout)
