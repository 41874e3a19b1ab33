"""The ports between parts: what one part may ask of another, and nothing of how it is done."""
