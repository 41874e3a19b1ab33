"""Orgs: the border inside which every record lives."""
