"""What to generate, as YAML or as Python objects."""
