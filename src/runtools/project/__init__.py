"""Project folders: definitions as files, loading them, and the plan of a deploy."""
