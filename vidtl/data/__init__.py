"""From annotation files to clips: records, sampling, decoding, loading and what happens to pixels on the device."""
