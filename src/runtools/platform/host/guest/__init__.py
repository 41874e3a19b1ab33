"""The host's side of the guest agent: the client, and what a machine is made to be."""
