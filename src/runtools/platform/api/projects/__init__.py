"""Projects: what an org sorts its things into. They allow and forbid nothing."""
