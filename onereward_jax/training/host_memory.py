"""Peak memory of this process."""

from __future__ import annotations

import pathlib
import re
import resource
import sys

import jax

GIB = 2**30


def memory_peak() -> dict[str, float]:
    """Peak memory in GiB: `device_memory_gib`, the maximum over local devices, if devices report
    it; otherwise `host_memory_gib` (resident set size).
    """
    reported = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in reported if "peak_bytes_in_use" in stats]
    if peaks:
        return {"device_memory_gib": max(peaks) / GIB}
    return {"host_memory_gib": _resident_peak() / GIB}


def _resident_peak() -> int:
    """Peak resident bytes. On Linux not from `getrusage`, which includes the parent's peak."""
    status = pathlib.Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M)):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
