"""Evidence of single words for tags, trees and labels, counted from text and added to word logits."""
