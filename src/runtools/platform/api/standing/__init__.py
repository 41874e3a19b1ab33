"""Standing sandboxes: which one stands for a slug."""
