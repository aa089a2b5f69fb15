"""Loads editors and text encoders from folders in the layout of diffusers' `FluxFillPipeline`.

    folder/transformer    folder/vae             folder/scheduler/scheduler_config.json
    folder/text_encoder   folder/text_encoder_2  folder/tokenizer  folder/tokenizer_2

(`text_encoder` is CLIP, `text_encoder_2` is T5.) The editor needs only the first line, the text
encoder only the second. Trained transformers are often released alone, like OneReward's: pass one,
a folder or a single file, as `transformer` to replace the folder's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from onereward_jax.convert import (
    CLIP,
    FLUX,
    T5,
    VAE,
    check_fill_pipeline,
    component_config,
    load_params,
    load_tokenizers,
    read_single_file,
    single_file_config,
)
from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.t5 import T5Config, T5Encoder
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import abstract_arrays
from onereward_jax.policy.fill_policy import FillPolicy, PolicyParams
from onereward_jax.policy.noise_schedule import NoiseSchedule
from onereward_jax.policy.sampler import Solver
from onereward_jax.policy.text_encoders import TextEncoder, TextParams


def read_policy(
    folder: str | Path,
    *,
    transformer: str | Path | None = None,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: str = "none",
    paste_back: bool = False,
    solver: Solver = "euler",
) -> FillPolicy:
    """The static part of the editor in `folder`; reads configs, not weights.

    Args:
      folder: layout as above.
      transformer: folder or single file of a transformer to use instead of the editor's own;
        None: its own.
      dtype: compute dtype of the transformer. The VAE always computes in float32: gradients through
        its decoder overflow in half precision.
      param_dtype: dtype of the transformer's parameters.
      remat: remat policy of both.
      paste_back, solver: see `FillPolicy`.

    Raises:
      FileNotFoundError: a config file is missing.
      ValueError: another kind of folder, an unsupported field, or transformer and VAE do not match.
    """
    folder = Path(folder)
    check_fill_pipeline(folder)
    flux = FluxTransformer(
        FluxConfig.from_dict(transformer_config(folder, transformer)),
        dtype=dtype,
        param_dtype=param_dtype,
        remat=remat,
    )
    vae_config = VaeConfig.from_dict(component_config(folder / "vae", VAE))
    vae = AutoencoderKL(vae_config, remat=remat)
    return FillPolicy(flux, vae, read_schedule(folder / "scheduler"), paste_back, solver)


def transformer_config(folder: str | Path, transformer: str | Path | None = None) -> dict[str, Any]:
    """The config.json of an editor's transformer, or of the one used instead.

    A single file has none: its sizes are read from its tensors and compared with the editor's own.

    Raises:
      FileNotFoundError, ValueError: as `convert.component_config` and `convert.single_file_config`.
    """
    own = Path(folder) / "transformer"
    if transformer is None or not Path(transformer).is_file():
        return component_config(transformer or own, FLUX)
    replaced = component_config(own, FLUX) if own.is_dir() else None
    return single_file_config(read_single_file(transformer), replaced)


def read_schedule(folder: str | Path) -> NoiseSchedule:
    """The noise schedule of a pipeline's `scheduler` folder.

    Raises:
      FileNotFoundError, ValueError: missing, unreadable or unsupported `scheduler_config.json`.
    """
    return NoiseSchedule.from_dict(read_json(Path(folder) / "scheduler_config.json"))


def load_policy(
    folder: str | Path,
    mesh: Mesh,
    *,
    transformer: str | Path | None = None,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: str = "none",
    paste_back: bool = False,
    solver: Solver = "euler",
) -> tuple[FillPolicy, PolicyParams]:
    """Loads the editor in `folder`, with its weights sharded over `mesh`.

    Each process reads only the slices of its own devices.

    Args, Raises: as `read_policy` and `convert.load_params`.
    """
    folder = Path(folder)
    transformer = Path(transformer or folder / "transformer")
    editor = read_policy(
        folder,
        transformer=transformer,
        dtype=dtype,
        param_dtype=param_dtype,
        remat=remat,
        paste_back=paste_back,
        solver=solver,
    )
    abstract = abstract_params(editor, mesh)
    return editor, PolicyParams(
        transformer=load_params(transformer, abstract.transformer, FLUX),
        vae=load_params(folder / "vae", abstract.vae, VAE),
    )


def abstract_params(editor: FillPolicy, mesh: Mesh) -> PolicyParams:
    """Shapes, dtypes and shardings of an editor's parameters, as `jax.ShapeDtypeStruct`."""
    key, batch = jax.random.key(0), mesh.size
    return PolicyParams(
        transformer=abstract_arrays(
            jax.eval_shape(lambda: init_transformer(editor.transformer, key, batch)), mesh
        ),
        vae=abstract_arrays(jax.eval_shape(lambda: _init_vae(editor, key, batch)), mesh),
    )


def init_params(editor: FillPolicy, key: PRNGKeyArray, mesh: Mesh) -> PolicyParams:
    """Random parameters, created sharded on `mesh`: no host ever holds a full copy."""
    keys = PolicyParams(*jax.random.split(key))

    def init() -> PolicyParams:
        return PolicyParams(
            transformer=nn.meta.unbox(
                init_transformer(editor.transformer, keys.transformer, mesh.size)
            ),
            vae=nn.meta.unbox(_init_vae(editor, keys.vae, mesh.size)),
        )

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(editor, mesh))
    return jax.jit(init, out_shardings=shardings)()


def read_text_configs(folder: str | Path) -> tuple[ClipTextConfig, T5Config]:
    """The configs of the text encoders in `folder`; reads no weights.

    Raises:
      FileNotFoundError, ValueError: one is missing, unreadable or of another model.
    """
    return (
        ClipTextConfig.from_dict(component_config(Path(folder) / "text_encoder", CLIP)),
        T5Config.from_dict(component_config(Path(folder) / "text_encoder_2", T5)),
    )


def load_text_encoder(
    folder: str | Path,
    mesh: Mesh,
    *,
    max_sequence_length: int = 512,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
) -> tuple[TextEncoder, TextParams]:
    """Loads the text encoders in `folder`, with their weights sharded over `mesh`.

    Args:
      folder: layout as above.
      mesh: mesh of the weights.
      max_sequence_length: T5 tokens per prompt.
      dtype: compute dtype of both, and dtype of the embeddings.
      param_dtype: dtype of the parameters.

    Raises:
      FileNotFoundError, ValueError: as `convert.load_params` and `convert.load_tokenizers`.
    """
    folder, configs = Path(folder), read_text_configs(folder)
    kinds = {"dtype": dtype, "param_dtype": param_dtype}
    clip, t5 = ClipTextModel(configs[0], **kinds), T5Encoder(configs[1], **kinds)
    encoder = TextEncoder(clip, t5, load_tokenizers(folder), max_sequence_length)
    key, ids = jax.random.key(0), jnp.zeros((mesh.size, 1), jnp.int32)
    abstract = TextParams(
        clip=abstract_arrays(jax.eval_shape(clip.init, key, ids)["params"], mesh),
        t5=abstract_arrays(jax.eval_shape(t5.init, key, ids)["params"], mesh),
    )
    return encoder, TextParams(
        clip=load_params(folder / "text_encoder", abstract.clip, CLIP),
        t5=load_params(folder / "text_encoder_2", abstract.t5, T5),
    )


def init_transformer(transformer: FluxTransformer, key: PRNGKeyArray, batch: int = 1) -> Any:
    """Boxed parameters of the transformer. The inputs are dummies; only the batch size matters:
    under `jax.set_mesh` it must be a multiple of the number of devices."""
    config = transformer.config
    return transformer.init(
        key,
        jnp.zeros((batch, 1, config.in_channels)),
        jnp.zeros((batch, 1, config.joint_attention_dim)),
        jnp.zeros((batch, config.pooled_projection_dim)),
        jnp.zeros((batch,)),
        jnp.zeros((1, 3)),
        jnp.zeros((1, 3)),
        jnp.ones((batch,)) if config.guidance_embeds else None,
    )["params"]


def _init_vae(editor: FillPolicy, key: PRNGKeyArray, batch: int) -> Any:
    """Boxed parameters of the VAE; inputs as in `init_transformer`."""
    side, channels = editor.vae.config.scale_factor, editor.vae.config.in_channels
    return editor.vae.init(key, jnp.zeros((batch, side, side, channels)))["params"]
