"""Access by SSH: who may come in, for the gateway; and passes, which let a key into one sandbox."""
