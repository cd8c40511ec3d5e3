"""Scans that hang or kill their process on some files, once or always; processes import them by name."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from vidtl.data.manifest import Entry
from vidtl.prepare.manifest import ManifestFolder
from vidtl.prepare.scan import ScanJob, ScanPlan, scan_file, scan_set
from vidtl.runtime.progress import Progress
from vidtl.video.limits import frame_decoded


def stubborn_scan(job: ScanJob, pause_s: float = 0.0) -> Entry:
    """As `scan_file`, but hang, sleep, crash, or take long to decode, by a file's name; with `once`, the first time."""
    tried = job.root / f"{job.path}.tried"
    if "once" not in job.path or not tried.exists():
        tried.touch()
        while "hangs" in job.path:
            pass
        for _ in range(15 if "long" in job.path else 0):
            start_s = time.process_time()
            while time.process_time() < start_s + 0.1:
                pass
            frame_decoded()
        time.sleep(600 if "sleeps" in job.path else pause_s)
        if "crashes" in job.path:
            os.kill(os.getpid(), signal.SIGSEGV)
    return scan_file(job)


def list_modules(job: ScanJob) -> Entry:
    """Give those of a few modules that the process has as the reason."""
    found = sys.modules.keys() & {"vidtl.prepare.scan", "av", "torch", "pytest", "vidtl.config"}
    return Entry(path=job.path, status="unreadable", reason=" ".join(found), depth="packets")


slow_scan = partial(stubborn_scan, pause_s=0.2)  # slow enough to be killed in between


if __name__ == "__main__":
    from tests.prepare import stubborn

    root, output, *paths = sys.argv[1:]
    folder = ManifestFolder(Path(output))
    plan = ScanPlan(root=Path(root), paths=paths, folder=folder, scan=stubborn.slow_scan, num_workers=2, time_limit_s=1)
    scan_set(plan, Progress(visible=False))
