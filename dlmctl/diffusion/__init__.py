"""Diffusion language models: forward processes, objectives, bounds and samplers."""
