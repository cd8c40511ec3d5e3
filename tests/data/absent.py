"""Which annotated videos are not there."""

from vidtl.annotations.records import Records


def missing(records: Records) -> list[int]:
    """Numbers of the records whose file does not exist, in rising order."""
    return [index for index in range(len(records)) if not records.path(index).exists()]
