"""The worker: drives runs of agents. The loop is here, the work is done in sandboxes (decision 0024)."""
