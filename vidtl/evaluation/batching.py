"""Which videos share micro-batches: the unit that is given to a process, written down and never scored twice.

What a network computes for a clip depends, in the last bits, on how many clips share its forward pass. Groups of
neighbouring videos are therefore fixed by the annotation, the protocol and the batch size alone: whoever scores a
group, in whatever run after whatever interruption, forms the same micro-batches and finds the same bits.
"""

FULL_ENOUGH = 0.9
"""Share of a group's micro-batches that its clips must fill."""


def group_size(num_views: int, batch_size: int) -> int:
    """Videos of one group: the fewest whose views fill `FULL_ENOUGH` of their micro-batches.

    Small groups lose less when a run is killed, and share out more evenly; at worst a group has `batch_size` videos.
    """
    step = max(1, batch_size // num_views)
    sizes: list[int] = [*range(step, batch_size, step), batch_size]
    return min(size for size in sizes if _filled_share(size * num_views, batch_size) >= FULL_ENOUGH)


def _filled_share(num_clips: int, batch_size: int) -> float:
    num_batches = -(-num_clips // batch_size)
    return num_clips / (num_batches * batch_size)


def video_groups(num_videos: int, num_views: int, batch_size: int) -> list[range]:
    """Record numbers of every group, in annotation order; the last group may be smaller."""
    size = group_size(num_views, batch_size)
    return [range(first, min(first + size, num_videos)) for first in range(0, num_videos, size)]
