"""Usage of days that are long gone, added up."""
