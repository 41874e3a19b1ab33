"""Sessions: people who are signed in, in browsers and command lines."""
