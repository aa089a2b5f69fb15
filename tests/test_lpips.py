"""LPIPS: parity with a restatement in torch, with random weights; what a file must have."""

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from onereward_jax.convert.lpips_file import read_lpips
from onereward_jax.models.lpips import BACKBONES, backbone_of, expected_shapes, lpips


class Fire(nn.Module):
    """SqueezeNet's: a squeeze, then two expansions side by side."""

    def __init__(self, inside, squeezed, each):
        super().__init__()
        self.squeeze = nn.Conv2d(inside, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, each, 1)
        self.expand3x3 = nn.Conv2d(squeezed, each, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def alex():
    """torchvision's AlexNet, and the modules behind which it is tapped."""
    layers = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return layers, (1, 4, 7, 9, 11)


def vgg():
    """VGG-16's "D"."""
    layers, inside = [], 3
    for width in (
        64,
        64,
        "M",
        128,
        128,
        "M",
        256,
        256,
        256,
        "M",
        512,
        512,
        512,
        "M",
        512,
        512,
        512,
    ):
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
            inside = width
    return layers, (3, 8, 15, 22, 29)


def squeeze():
    """SqueezeNet 1.1."""
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers = [
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64), pool,
        Fire(128, 32, 128), Fire(256, 32, 128), pool, Fire(256, 48, 192), Fire(384, 48, 192),
        Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip
    return layers, (1, 4, 7, 9, 10, 11, 12)


def distance(features, linear, a, b):
    """The published formula, on two pictures [3, h, w] in [-1, 1]."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    x, total = torch.stack([(one - shift) / scale for one in (a, b)]), 0.0
    layers, taps = features
    for number, layer in enumerate(layers):
        x = layer(x)
        if number in taps:
            unit = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
            weights = linear[taps.index(number)]
            total += (weights.view(-1, 1, 1) * (unit[0] - unit[1]) ** 2).sum(0).mean()
    return float(total)


def saved(folder, features, linear, spelling):
    """A file as the package lpips or torchvision name its tensors."""
    layers, taps = features
    tensors = {}
    for number, layer in enumerate(layers):
        part = 1 + sum(tap < number for tap in taps)
        for name, tensor in layer.state_dict().items():
            top = f"net.slice{part}" if spelling == "lpips" else "features"
            tensors[f"{top}.{number}.{name}"] = tensor.numpy()
    for number, weights in enumerate(linear):
        if spelling == "lpips":
            tensors[f"lin{number}.model.1.weight"] = weights.view(1, -1, 1, 1).numpy()
            tensors["scaling_layer.shift"] = np.zeros((1, 3, 1, 1), np.float32)
        else:
            tensors[f"lin{number}.weight"] = weights.numpy()
    folder.mkdir(exist_ok=True)
    save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()},
              folder / f"{spelling}.safetensors")  # fmt: skip
    return folder


def random_lpips(make, seed=0):
    torch.manual_seed(seed)
    layers, taps = make()
    shapes = expected_shapes(make.__name__)
    linear = [torch.rand(shapes[f"lin{number}"]) for number in range(len(taps))]
    return (layers, taps), linear


@pytest.mark.parametrize(
    "make",
    [alex, pytest.param(vgg, marks=pytest.mark.slow), squeeze],
    ids=lambda make: make.__name__,
)
def test_distances_equal_the_published_network(make, tmp_path):
    features, linear = random_lpips(make)
    params = read_lpips(saved(tmp_path / "lpips", features, linear, "lpips"))
    other = read_lpips(saved(tmp_path / "plain", features, linear, "torchvision"))
    assert backbone_of(params) == make.__name__
    assert all(np.array_equal(params[name], other[name]) for name in (params | other))
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 2, 45, 38, 3)).astype(np.float32)  # odd windows at the ends
    b[1] = a[1]
    found = np.asarray(jax.jit(lambda a, b: lpips(params, a, b))(a, b))
    with torch.no_grad():
        expected = distance(
            features, linear, *(torch.tensor(one[0]).movedim(-1, 0) for one in (a, b))
        )
    np.testing.assert_allclose(found, [expected, 0.0], rtol=2e-4, atol=1e-7)
    assert expected > 1e-3


def test_a_file_of_something_else_is_named(tmp_path):
    features, linear = random_lpips(squeeze)
    assert set(BACKBONES) == {"alex", "vgg", "squeeze"}
    folder = saved(tmp_path / "short", features, linear[:-1], "lpips")
    with pytest.raises(ValueError, match=r"backbone squeeze:\n  lin6: missing, \(512,\) expected"):
        read_lpips(folder)
    linear[0] = linear[0] * np.nan
    with pytest.raises(ValueError, match=r"lin0.model.1.weight has values that are not finite"):
        read_lpips(saved(tmp_path / "nan", features, linear, "lpips"))
    save_file({"conv.weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"conv.weight is not a tensor of LPIPS"):
        read_lpips(tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has 0 .safetensors files, one expected"):
        read_lpips(tmp_path / "empty")
