"""Models on disk: the toolkit's own folders, the bundled ones, and those of others."""
