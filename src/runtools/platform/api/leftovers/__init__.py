"""What runs have left running in sandboxes, and ending it: it is owed until it has ended."""
