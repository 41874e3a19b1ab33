"""Pages: signing in, accepting an invitation, letting a command line in. Plain forms, no framework."""
