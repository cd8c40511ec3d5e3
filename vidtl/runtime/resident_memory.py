"""Memory that a process holds, as the system counts it: its own and that of every library in it."""

from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """What this process holds in memory now (VmRSS); `None` where the system does not tell, which only Linux does."""
    return _read("VmRSS")


def peak_resident_bytes() -> int | None:
    """The most it has held since its program started (VmHWM); `getrusage` would count what its parent held, too."""
    return _read("VmHWM")


def _read(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(values[0]) * 1024 if values else None
