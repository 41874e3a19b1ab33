"""Dev URLs: HTTP to ports of sandboxes. Every head is judged; bodies and upgrades go as they are."""
