"""Draws to words: batches, the walk through the reverse process, guidance."""
