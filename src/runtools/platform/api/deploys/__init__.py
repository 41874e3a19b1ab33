"""Deploys: the plan of one, carrying it out, and what is remembered of it."""
