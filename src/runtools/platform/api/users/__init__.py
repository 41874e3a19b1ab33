"""Users: everybody who has an account, and what the operator may do with it."""
