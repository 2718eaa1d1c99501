"""Controls: their base classes, how they combine, and how they are found."""
