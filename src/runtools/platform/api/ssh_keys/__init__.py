"""SSH keys: public keys of people, registered once and named by label."""
