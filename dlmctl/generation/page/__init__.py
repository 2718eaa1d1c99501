"""Results to look at: one HTML page without a network, and the same texts in a notebook."""
