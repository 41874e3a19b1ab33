"""Models: which there are, who answers for them, and where their keys come from."""
