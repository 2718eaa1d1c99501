"""Tags and trees of finished words: judges, which never guide."""
