"""Production-quality fakes, and the contract suites that the fakes and the real things both pass."""
