"""Scans that hang or kill their process on some files, for children that import this by name."""

import os
import signal
import time

from vidtl.data.manifest_entry import Entry
from vidtl.prepare.scan import ScanJob, scan_file


def stubborn_scan(job: ScanJob) -> Entry:
    """As `scan_file`, but for files with a telling name."""
    if "hangs" in job.path:
        time.sleep(600)
    if "crashes" in job.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    return scan_file(job)


def slow_scan(job: ScanJob) -> Entry:
    """As `scan_file`, slowly enough to be killed in between."""
    time.sleep(0.05)
    return scan_file(job)
