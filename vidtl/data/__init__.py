"""From annotation files to clips: records, sampling, loading, and augmentation on the device."""
