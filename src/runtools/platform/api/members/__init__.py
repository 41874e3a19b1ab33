"""Members: which people are in an org, and in which role."""
