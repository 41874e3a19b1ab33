"""Networks of sandboxes: namespaces in which they reach the internet and nothing else."""
