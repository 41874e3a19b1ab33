"""Dev URLs: who may enter which port of a sandbox, and links that open one for a while."""
