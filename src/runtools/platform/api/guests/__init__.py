"""What sandboxes are told inside: environments, keys, login hashes; sealed, for as long as it is needed."""
