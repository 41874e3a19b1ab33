"""The vault: what is sealed in the database, and the master keys that open it."""
