"""Disk images of sandboxes: making, copying, growing and counting them."""
