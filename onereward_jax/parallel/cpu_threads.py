"""Threads enough for a CPU that plays several devices."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

THREADS_PER_DEVICE = 16

_FLAG = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


def set_cpu_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has XLA's CPU client make threads for all virtual devices; to be called before the first.

    XLA gives each device one thread, and a device that waits at a collective keeps one. As soon as
    a program holds collectives that do not depend on each other, devices come to them in
    different orders, all threads wait, and the process hangs until XLA aborts it.

    Args:
      environment: where XLA_FLAGS is read and PJRT_NPROC set, unless it is set or there is only
        one device.
    """
    found = _FLAG.findall(environment.get("XLA_FLAGS", ""))
    if found and int(found[-1]) > 1:
        environment.setdefault("PJRT_NPROC", str(THREADS_PER_DEVICE * int(found[-1])))
