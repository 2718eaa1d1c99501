"""Evidence tables: what single words say about tags, counted from text and added to word logits."""
