"""The composition root: how many processes there are, as whom they run, and what is wired to what."""
