"""Frozen features: what frozen experts compute of a film's focal views, kept on disk, read in batches."""
