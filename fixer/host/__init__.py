"""The host: the only room that runs commands or reads /proc and /sys."""
