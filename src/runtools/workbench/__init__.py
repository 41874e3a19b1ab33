"""What a model can do in a sandbox: its tools, worded for models. Sees the SDK only."""
