"""A custom reward: the brighter the edited area, the better.

No judge is trained; the gradient comes from this function alone.

    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/bright \
      --config.rl.reward=examples/reward.py --config.stages="('data','embed','rl','evaluate')"
"""

import jax
import jax.numpy as jnp

from onereward_jax.reward import Reward


class Bright:
    """Compares mean brightness inside the mask."""

    def score(self, params, images_a, images_b, batch):
        """log P("Yes") and log P("No"), [b, e] each, for images [b, h, w, 3] in [-1, 1]."""

        def light(images):
            return jnp.mean(images * batch["mask"], axis=(1, 2, 3))

        better = params["scale"] * (light(images_a) - light(images_b))[:, None]
        better = jnp.broadcast_to(better, batch["dimension_mask"].shape)
        return jax.nn.log_sigmoid(better), jax.nn.log_sigmoid(-better)


def make_reward(config, mesh):
    """Returns the reward and its only weight."""
    return Reward(scorer=lambda size: Bright(), params={"scale": jnp.float32(10.0)})
