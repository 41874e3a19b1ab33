"""Health: whether the platform lives, and whether it can work."""
