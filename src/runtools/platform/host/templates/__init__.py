"""Templates: recipes, builds, images and warm snapshots."""
