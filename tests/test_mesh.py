"""How devices of slices and hosts lie on the mesh, by stand-ins with the numbers JAX gives them."""

import dataclasses
import importlib.util
import itertools
import pathlib

import pytest

import onereward_jax
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.topology import Topology

CONFIGS = pathlib.Path(onereward_jax.__file__).parents[1] / "configs"


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What a mesh asks of a device."""

    id: int
    slice_index: int
    process_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"
    coords: tuple[int, int, int] = (0, 0, 0)
    core_on_chip: int = 0


def tpu_slices(count, rows=2, columns=4):
    """v6e slices of rows x columns chips, four to a host, in an order that tells nothing."""
    chips = itertools.product(range(count), range(columns), range(rows))
    found = [
        Accelerator(
            100_000 * (one + 1) + y * rows + x,
            slice_index=one,
            process_index=one * columns // 2 + y // 2,
            platform="tpu",
            device_kind="TPU v6 lite",
            coords=(x, y, 0),
        )
        for one, y, x in chips
    ]
    return found[::2] + found[1::2]


def gpu_hosts(count, gpus=8):
    """One process a host: XLA gives every host a "slice" of its own."""
    return [
        Accelerator(host * gpus + local, slice_index=host, process_index=host)
        for host in range(count)
        for local in range(gpus)
    ]


def gpus_of_own_processes(count, gpus=8):
    """One process a GPU, ranks dealt out in turn (Slurm's cyclic): XLA numbers rank by rank."""
    return [
        Accelerator(rank, slice_index=rank % count, process_index=rank)
        for rank in range(count * gpus)
    ]


def described_gpu_hosts(count, gpus=8):
    """What the plugin of JAX 0.10 describes for compiling ahead: all in one slice."""
    hosts = gpu_hosts(count, gpus)
    return [dataclasses.replace(gpu, slice_index=0) for gpu in hosts]


GPUS = {
    "a process a host": (gpu_hosts, lambda gpu: gpu.process_index),
    "a process a GPU": (gpus_of_own_processes, lambda gpu: gpu.slice_index),
    "described": (described_gpu_hosts, lambda gpu: gpu.process_index),
}


def layout(mesh, number):
    """[data, fsdp] -> the numbers found along each group of `tensor` and `context`, in order."""
    groups = mesh.devices.reshape(*mesh.devices.shape[:2], -1)
    return [[[number(one) for one in group] for group in block] for block in groups]


def test_one_axis_takes_what_is_left():
    assert tuple(make_mesh(2, -1, 2).shape.items()) == (
        ("data", 2), ("fsdp", 2), ("tensor", 2), ("context", 1))  # fmt: skip
    assert tuple(make_mesh().shape.values()) == (1, 8, 1, 1)
    assert tuple(make_mesh(1, -1, 2, 2).shape.values()) == (1, 2, 2, 2)
    assert tuple(make_mesh(1, 2, 2, -1).shape.values()) == (1, 2, 2, 2)


@pytest.mark.parametrize("sizes", [(3, 1, 1), (3, -1, 1), (-1, -1, 1), (0, -1, 1), (1, 2, 2, 3)])
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes):
    named = r"^config.mesh is \S+ \(data x fsdp x tensor x context\)[^\n]+$"
    with pytest.raises(ValueError, match=named):
        make_mesh(*sizes)


def test_slices_of_tpus_lie_along_data_and_nothing_else_crosses_them():
    mesh = make_mesh(4, -1, 2, devices=tpu_slices(2))
    assert layout(mesh, lambda one: one.slice_index) == [[[0] * 2] * 2] * 2 + [[[1] * 2] * 2] * 2
    for x, y in (group for block in mesh.devices[..., 0] for group in block):
        # neighbours on the torus
        assert sum(abs(a - b) for a, b in zip(x.coords, y.coords)) == 1
    with pytest.raises(ValueError, match=r"^config.mesh.data is 1: it spans 2 TPU slices"):
        make_mesh(1, -1, 2, devices=tpu_slices(2))
    with pytest.raises(ValueError, match=r"^config.mesh: TPU slices have 8, 4 devices"):
        uneven = [one for one in tpu_slices(2) if not (one.slice_index and one.coords[1] > 1)]
        make_mesh(2, -1, 1, devices=uneven)


@pytest.mark.parametrize("kind", GPUS)
def test_hosts_of_gpus_lie_along_data_and_tensor_stays_inside(kind):
    """Whatever the processes are, and in a run as in what is compiled ahead of it."""
    devices, host_of = GPUS[kind]
    two = devices(2)
    by_data = make_mesh(2, 2, 4, devices=two[::-1])
    assert layout(by_data, host_of) == [[[0] * 4] * 2, [[1] * 4] * 2]
    # more hosts than `data` has parts: `fsdp` crosses them, `tensor` never
    by_fsdp = make_mesh(1, 8, -1, devices=devices(8))
    assert layout(by_fsdp, host_of) == [[[host] * 8 for host in range(8)]]
    # two groups of `tensor` to a host
    assert layout(make_mesh(1, -1, 4, devices=two), host_of) == [[[0] * 4] * 2 + [[1] * 4] * 2]


def test_a_tensor_group_is_not_cut_by_the_end_of_a_host():
    with pytest.raises(ValueError, match=r"^config.mesh.tensor is 6, but a host has 8 GPUs: "):
        make_mesh(1, -1, 6, devices=gpu_hosts(3))
    # as wide as two hosts: asked for, so given
    wide = layout(make_mesh(1, -1, 16, devices=gpu_hosts(4)), lambda gpu: gpu.process_index)
    assert wide == [[[0] * 8 + [1] * 8, [2] * 8 + [3] * 8]]


def test_a_context_group_lies_in_a_host_and_inside_a_slice():
    by_host = layout(make_mesh(1, 2, 4, 2, devices=gpu_hosts(2)), lambda gpu: gpu.process_index)
    assert by_host == [[[0] * 8, [1] * 8]]
    with pytest.raises(ValueError, match=r"^config.mesh.tensor x context is 2x3, but a host has 8"):
        make_mesh(1, -1, 2, 3, devices=gpu_hosts(3))
    slices = layout(make_mesh(2, 2, 2, 2, devices=tpu_slices(2)), lambda one: one.slice_index)
    assert slices == [[[0] * 4] * 2, [[1] * 4] * 2]


def test_the_published_mesh_is_one_for_hosts_of_gpus():
    """`--nodes=8` of eight GPUs, as docs/gpu.md starts it."""
    config = load_config(str(CONFIGS / "flux_fill_dev.py"))
    mesh = make_mesh(**config.mesh, devices=gpus_of_own_processes(8))
    assert tuple(mesh.shape.values()) == (1, 8, 8, 1)


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the extra cuda"
)
def test_the_described_gpus_are_as_the_stand_ins_say():
    found = Topology.named("h100:2x4").devices()
    numbers = [(one.platform, one.id, one.slice_index, one.process_index) for one in found]
    wanted = described_gpu_hosts(2, 4)
    assert numbers == [(one.platform, one.id, one.slice_index, one.process_index) for one in wanted]
    assert layout(make_mesh(2, -1, 2, devices=found), lambda gpu: gpu.process_index) == [
        [[0, 0]] * 2,
        [[1, 1]] * 2,
    ]
