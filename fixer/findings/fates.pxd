# cython: language_level=3
"""What became of each packet of a settled `Match`, and what differs in those that arrived: by who sent to whom.

Nothing is called lost that may be elsewhere: in other segments, outside of the other capture's time, acknowledged and
unseen, or in a time of which the other capture shows nothing at all.
"""
