"""The rules that lead packets to the queue: what is to be taken, rendered, switched on and off."""
