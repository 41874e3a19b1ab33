"""The agent inside a sandbox: standard library only, so that any image with Python can run it."""
