"""The audit log: who did what to which resource, from where."""
