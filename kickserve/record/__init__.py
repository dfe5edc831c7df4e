"""Keeps every prediction: the journal on disk, the way from there to the store, and how good they were."""
