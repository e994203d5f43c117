"""What lies below /run/fixer, and outlives the daemon that wrote it."""
