"""From records to batches: sampling, loading, and augmentation on the device."""
