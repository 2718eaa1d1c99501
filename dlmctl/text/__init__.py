"""Words: raw text to words and back, words to ids, field names and values."""
