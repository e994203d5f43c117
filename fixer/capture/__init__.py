"""Captures: what frames a file holds, and a file to write."""
