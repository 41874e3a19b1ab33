"""The acts: one module per verb. Each runs in the task of the sandbox it changes."""
