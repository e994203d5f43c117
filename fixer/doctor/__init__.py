"""What is wrong with a host that fixer can only carry, and its cure."""
