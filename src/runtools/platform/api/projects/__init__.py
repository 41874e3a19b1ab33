"""Projects: groups of an org's records, for looking at them only."""
