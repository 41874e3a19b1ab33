"""The models that runs think with."""
