"""The policy: FLUX Fill as a pure function of parameters, latents, condition and prompt."""

from onereward_jax.policy.fill_policy import FillPolicy, PolicyParams
from onereward_jax.policy.model_inputs import Condition, PromptEmbeds
from onereward_jax.policy.noise_schedule import (
    NoiseSchedule,
    add_noise,
    predict_x0,
    sigma_table,
    velocity_target,
)
from onereward_jax.policy.policy_loader import (
    init_params,
    load_policy,
    load_text_encoder,
    read_policy,
    read_text_configs,
)
from onereward_jax.policy.sampler import ab2_step, denoise, euler_step, guided
from onereward_jax.policy.text_cache import (
    TextCache,
    add_to_text_cache,
    embedded_prompts,
    open_text_cache,
)
from onereward_jax.policy.text_encoders import TextEncoder, TextParams, embed_prompts

__all__ = [
    "Condition",
    "FillPolicy",
    "PolicyParams",
    "NoiseSchedule",
    "PromptEmbeds",
    "TextCache",
    "TextEncoder",
    "TextParams",
    "add_noise",
    "add_to_text_cache",
    "denoise",
    "embed_prompts",
    "embedded_prompts",
    "ab2_step",
    "euler_step",
    "guided",
    "init_params",
    "load_policy",
    "load_text_encoder",
    "open_text_cache",
    "predict_x0",
    "read_policy",
    "read_text_configs",
    "sigma_table",
    "velocity_target",
]
