"""The system's figures follow what the process holds."""

import multiprocessing

from vidtl.runtime.resident_memory import peak_resident_bytes, resident_bytes

SIZE = 64 << 20


def figures() -> list[tuple[int | None, int | None]]:
    told = [(resident_bytes(), peak_resident_bytes())]
    held = bytearray(b"1") * SIZE
    told.append((resident_bytes(), peak_resident_bytes()))
    del held
    return [*told, (resident_bytes(), peak_resident_bytes())]


def test_the_peak_stays_and_what_is_held_falls() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, during, after = pool.apply(figures)
    if before[0] is None:
        assert before == during == after == (None, None)
        return
    assert during[0] - before[0] > 0.95 * SIZE
    assert during[0] - after[0] > 0.95 * SIZE, "freed memory counts as held"
    assert during[1] - before[1] > 0.95 * SIZE
    assert after[1] > 0.95 * during[0], "the system's figures are exact to some pages of each core"
