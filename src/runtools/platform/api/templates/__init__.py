"""Templates: immutable versions of what sandboxes are made from, and their builds."""
