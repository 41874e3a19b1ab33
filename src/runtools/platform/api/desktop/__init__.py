"""Desktops of sandboxes: what is on the screen, pointer, keys, clipboard, windows."""
