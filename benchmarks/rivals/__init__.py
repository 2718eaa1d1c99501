"""What others would use in place of guided diffusion, for benchmarks/comparison.py."""
