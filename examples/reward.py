"""A reward of one's own, named by `config.rl.reward`: the brighter the edited part, the better."""

import jax
import jax.numpy as jnp

from onereward_jax.reward import Reward


class Bright:
    """Compares the mean brightness inside the mask."""

    def score(self, params, images_a, images_b, batch):
        def light(images):
            return jnp.mean(images * batch["mask"], axis=(1, 2, 3))

        better = params["scale"] * (light(images_a) - light(images_b))[:, None]
        better = jnp.broadcast_to(better, batch["dimension_mask"].shape)
        return jax.nn.log_sigmoid(better), jax.nn.log_sigmoid(-better)


def make_reward(config, mesh):
    """The reward; its one weight shows that weights arrive."""
    return Reward(scorer=lambda size: Bright(), params={"scale": jnp.float32(10.0)})
