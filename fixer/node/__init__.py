"""The host fixer runs on: its iptables rules and what the kernel says about the queue."""
