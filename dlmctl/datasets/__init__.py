"""Corpora: reading them, preparing them for training, serving them in batches."""
