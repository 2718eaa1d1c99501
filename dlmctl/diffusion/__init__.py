"""Diffusion language models: the processes, their objectives, bounds and samplers."""
