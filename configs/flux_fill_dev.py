"""The paper's setting: FLUX.1-Fill-dev as the editor, Qwen2.5-VL-7B-Instruct as the judge.

Algorithm 1 at 1024x1024. Batch sizes, learning rates, guidance and N are the paper's (defaults.py);
what it does not state is our choice.

    python -m onereward_jax.main --config=configs/flux_fill_dev.py --workdir=gs://bucket/run \\
        --config.data.path=... --config.models.editor=... --config.models.judge=...

Both models can be local folders; the default is to download them from the Hugging Face hub.
Devices: 8, 16, 32 or 64; each sample of the batch is on 1, 2, 4 or 8 of them. More with
config.mesh.context (docs/tpu.md).
Cost: docs/fits.md has bounds of memory and seconds per step for each topology.
Result: not run yet.
"""

from ml_collections import ConfigDict

from configs.defaults import card, experiment

FLUX_LICENSE = (
    "other",
    "flux-1-dev-non-commercial-license",
    "https://huggingface.co/black-forest-labs/FLUX.1-Fill-dev/blob/main/LICENSE.md",
)


def get_config() -> ConfigDict:
    """The experiment."""
    config = experiment()
    config.mesh.update(data=1, fsdp=8, tensor=-1)
    config.models.editor = "black-forest-labs/FLUX.1-Fill-dev"
    config.models.judge = "Qwen/Qwen2.5-VL-7B-Instruct"
    config.data.path = "triplets"
    config.export.editor_card = card("", *FLUX_LICENSE)
    return config
