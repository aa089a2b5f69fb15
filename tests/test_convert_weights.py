"""The command that converts a transformer between a folder and a single file."""

import functools

import pytest
import torch
from diffusers import FluxTransformer2DModel
from test_single_file import FP8, folder

from onereward_jax import convert_weights

__all__ = ["folder"]


def test_the_command_converts_there_and_back(folder, tmp_path, capsys):
    for source, out, *flags in (
        (folder, "a.safetensors", "--dtype=bfloat16"),
        ("a.safetensors", "b"),
        ("b", "c.safetensors"),
        ("a.safetensors", "d.safetensors", f"--dtype={FP8}"),
        ("d.safetensors", "e"),
    ):
        convert_weights.main([str(tmp_path / source), str(tmp_path / out), *flags])
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()
    exact = FluxTransformer2DModel.from_pretrained(folder).state_dict()
    read = functools.partial(FluxTransformer2DModel.from_pretrained, torch_dtype=torch.bfloat16)
    for name, tensor in read(tmp_path / "b").state_dict().items():
        assert torch.equal(exact[name].bfloat16(), tensor)
    name = "transformer_blocks.0.ff.net.2.weight"
    rounded = read(tmp_path / "e").state_dict()[name].float()
    assert 0.01 < (rounded - exact[name]).norm() / exact[name].norm() < 0.04
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.txt").touch()
    for source, out, message in (
        (folder, f"f --dtype={FP8}", "OUT must be a file"),
        ("none", "f", "SOURCE"),
        ("b", "b", "SOURCE, or holds it"),
        ("b", "own", "other files: mine.txt"),
    ):
        with pytest.raises(SystemExit):
            convert_weights.main([str(tmp_path / source), *f"{tmp_path}/{out}".split()])
        assert message in capsys.readouterr().err
