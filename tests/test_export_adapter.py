"""The stage `export` writes the adapter of an editor that was trained as a LoRA."""

import numpy as np
from safetensors.numpy import load_file, save_file
from test_export import EDITOR, ONE_DEVICE, assert_same_bits, config, read_all, root, work

from onereward_jax.chain.stage import StageContext
from onereward_jax.stages.export.export_models import run

__all__ = ["root", "work"]


def test_the_adapter_of_an_editor_is_exported_as_comfyui_names_it(work, tmp_path):
    for name in ("reward", "data", "evaluate"):
        (tmp_path / name).symlink_to(work / name)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 128), (128, 4)))
    layer = "transformer_blocks.0.attn.to_q"
    (tmp_path / "rl" / "ema").mkdir(parents=True)
    save_file(
        {f"transformer.{layer}.lora_A.weight": a, f"transformer.{layer}.lora_B.weight": b},
        tmp_path / "rl" / "ema" / "pytorch_lora_weights.safetensors",
    )
    (tmp_path / "export").mkdir()
    settings = config(weights="ema", dtype="float32", editor="transformer", adapter="comfyui")
    results = run(StageContext("export", settings, tmp_path, ONE_DEVICE))
    assert results["editor_adapter"] == "export/editor_adapter"
    written = load_file(tmp_path / "export" / "editor_adapter" / "onereward_ema_lora.safetensors")
    qkv = "diffusion_model.double_blocks.0.img_attn.qkv"
    rows = np.concatenate([b, np.zeros((256, 4), np.float32)])
    assert_same_bits(written, {
        f"{qkv}.lora_down.weight": a, f"{qkv}.lora_up.weight": rows,
        f"{qkv}.alpha": np.array(4, np.float32),
    })  # fmt: skip
    assert (
        'weight_name="onereward_ema_lora.safetensors"'
        in (tmp_path / "export" / "editor_adapter" / "README.md").read_text()
    )
    merged, base = (
        read_all(folder)[f"{layer}.weight"].astype(np.float32)
        for folder in (tmp_path / "export" / "transformer", EDITOR / "transformer")
    )
    np.testing.assert_allclose(merged, base + b @ a, atol=1e-4)
