"""The platform as a server of the Model Context Protocol: any client gets sandboxes. Sees the SDK only."""
