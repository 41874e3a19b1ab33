"""The platform measured beside a floor that imports nothing of ours. How to add to it: `__main__`."""
