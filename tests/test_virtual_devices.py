"""Threads for virtual devices."""

import os

from onereward_jax.parallel.cpu_threads import THREADS_PER_DEVICE, set_cpu_threads


def test_several_virtual_devices_get_threads():
    flags = "--xla_force_host_platform_device_count=2 --xla_force_host_platform_device_count=4"
    environment = {"XLA_FLAGS": flags}
    set_cpu_threads(environment)
    assert environment["PJRT_NPROC"] == str(4 * THREADS_PER_DEVICE)


def test_one_device_and_a_wish_of_the_user_are_left_alone():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    set_cpu_threads(environment)
    set_cpu_threads({})
    assert "PJRT_NPROC" not in environment
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PJRT_NPROC": "9"}
    set_cpu_threads(environment)
    assert environment["PJRT_NPROC"] == "9"


def test_the_tests_have_them():
    """XLA read the number when the first device was made: its threads are there."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/comm") as file:
            names.append(file.read().strip())
    assert sum(name.startswith("tf_XLAEigen") for name in names) >= 8 * THREADS_PER_DEVICE
