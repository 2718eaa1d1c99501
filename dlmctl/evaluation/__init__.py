"""What is measured on texts: lm-score, diversity, novelty."""
