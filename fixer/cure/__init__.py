"""The cure that lasts, on the sender's node: who configures links here, which file, and does it still hold."""
