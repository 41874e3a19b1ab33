"""Generic pieces without product words: configuration, clock, log, processes, files."""
