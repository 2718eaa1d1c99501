"""Texts in, numbers out; no diffusion model is run."""
