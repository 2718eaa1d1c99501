"""Metrics of texts; none of them runs a diffusion model."""
