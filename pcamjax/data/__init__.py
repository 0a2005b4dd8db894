"""Patches on disk, from any source, to batches on a device."""
