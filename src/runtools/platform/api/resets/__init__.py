"""Links by which a person who has forgotten the password sets another."""
