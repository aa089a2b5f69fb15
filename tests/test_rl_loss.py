"""The shares of the flow-matching loss, and the settings of the RL step."""

import jax.numpy as jnp
import numpy as np
import pytest

from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.target_loss import target_shares


@pytest.mark.parametrize(
    "known, shares", [([1, 0, 0, 0], [4, 0, 0, 0]), ([1, 1, 0, 1], [4 / 3, 4 / 3, 0, 4 / 3])]
)
def test_the_flow_matching_loss_is_averaged_over_samples_with_a_target(known, shares):
    np.testing.assert_allclose(target_shares(jnp.array(known, bool)), shares, rtol=1e-6)


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"t1": 3, "t2": 2}, "t1"),
        ({"t2": 40}, "t2"),
        ({"ema_decay": 1.5}, "ema_decay"),
        ({"microbatches": 0}, "microbatches"),
    ],
)
def test_a_wrong_setting_is_named(fields, name):
    with pytest.raises(ValueError, match=name):
        RLConfig(**fields)
