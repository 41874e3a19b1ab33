"""The SSH gateway: one port for all sandboxes; the user name is the sandbox's id."""
