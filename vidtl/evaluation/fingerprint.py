"""What decides the scores of an evaluation, as a key that partial results are kept under."""

from typing import Any

import torch
from accelerate import Accelerator

from vidtl import __version__
from vidtl.config import ExperimentConfig
from vidtl.config.compare import settings_of
from vidtl.data.protocols import Protocol
from vidtl.data.records import Records, columns_sha256
from vidtl.runtime.launch import resolve_precision
from vidtl.training.checkpoint import Checkpoint


def evaluation_key(
    checkpoint: Checkpoint, records: Records, config: ExperimentConfig, protocol: Protocol, accelerator: Accelerator
) -> dict[str, Any]:
    """Everything that decides the scores, down to the last bit, but the number of processes, which does not."""
    return {
        "format": "vidtl-partial-evaluation-2",
        "vidtl": __version__,
        "torch": str(torch.__version__),
        "device": accelerator.device.type,
        "precision": resolve_precision(config.training.precision),
        "model": checkpoint.fingerprint(),
        "data": data_fingerprint(records),
        "protocol": [protocol.name, protocol.num_clips, protocol.num_crops, protocol.fusion],
        "settings": settings_of(config, affecting=["scores", "rounding"]),
    }


def data_fingerprint(records: Records) -> str:
    """SHA-256 of the annotated videos: ids, paths, labels, parts and class names, in their order."""
    first = (str(records.multi_label), str(records.frame_rate), *records.classes.names)
    columns = (
        *(records.ids.data, records.ids.offsets, records.paths.data, records.paths.offsets),
        *(records.label_offsets, records.label_classes, records.segment_starts_s, records.segment_ends_s),
    )
    return columns_sha256(first, columns)
