"""What ``fixer status`` finds, before it is shown."""
