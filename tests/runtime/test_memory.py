"""Memory that tensors free is used again without the system's help."""

import platform
import subprocess
import sys
from textwrap import dedent

import pytest

PAGES = """
    import resource
    import torch
    from vidtl.runtime.memory import keep_freed_memory

    def new_pages():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(64 << 20, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    new_pages()
    before = new_pages()
    keep_freed_memory()
    new_pages()
    print(before, new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_tensors_reuse_memory() -> None:
    done = subprocess.run([sys.executable, "-c", dedent(PAGES)], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 20 * 16, "the system maps every tensor anew, in pages of 4 KiB to 2 MiB"
    assert after < before / 20
