"""Usage: for how long sandboxes ran, and what they took on the disks."""
