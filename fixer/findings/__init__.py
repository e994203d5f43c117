"""What was seen, added up, and what it means."""
