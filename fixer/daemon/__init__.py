"""``fixer run``: settings, queues, datapath, log and signals."""
