"""Display of results: a self-contained HTML page, and the same texts in a notebook."""
