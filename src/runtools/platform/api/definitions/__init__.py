"""What stands in projects: agents, custom tools and standing sandboxes, each with immutable versions."""
