"""From a recipe to checked texts, a few or a million."""
