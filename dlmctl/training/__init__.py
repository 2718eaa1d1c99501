"""Training: one loop, and what each kind of model does inside it."""
