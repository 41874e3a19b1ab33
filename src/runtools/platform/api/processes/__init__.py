"""Durable processes of sandboxes: starting and looking at them, their output, their terminals."""
