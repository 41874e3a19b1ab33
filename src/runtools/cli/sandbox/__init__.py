"""``runtools sandbox …``: a file per family of commands."""
