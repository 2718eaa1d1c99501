"""Evidence tables: what single words say about tags, trees and labels, counted from text and added to word logits."""
