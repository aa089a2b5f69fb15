"""How much memory this process has held at most."""

from __future__ import annotations

import pathlib
import re
import resource
import sys

import jax

GIB = 2**30


def memory_peak() -> dict[str, float]:
    """GiB: `device_memory_gib` of the fullest device of this process where devices have a memory
    of their own and tell, `host_memory_gib` (resident) otherwise.
    """
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in told if "peak_bytes_in_use" in stats]
    if peaks:
        return {"device_memory_gib": max(peaks) / GIB}
    return {"host_memory_gib": _resident_peak() / GIB}


def _resident_peak() -> int:
    """Bytes. Linux's `getrusage` begins with what the starting process held: not asked there."""
    status = pathlib.Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M)):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
