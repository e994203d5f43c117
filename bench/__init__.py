"""``make bench``: what fixer costs, next to nothing at all and to what else one could put in its place.

===============  ===========================================================================
``__main__``     the command line: what is measured, in which order
``cases``        each kind of traffic, who receives it, and what must be reached
``cable``        two hosts in network namespaces and one stream between them
``receivers``    who listens at the receiving host, and the rule that feeds it
``latency``      what a packet waits: a question and its answer, with a rule and without
``datapath``     the packet path alone, without a kernel (``spin.pyx``)
``scan``         ``fixer scan`` next to tshark, on a capture made for it
``compare``      ``fixer compare`` of two captures, its time and memory
``memory``       the daemon's memory while ten million packets pass
``profile``      where a packet of one receiver costs more than of another (perf)
``ratio``        medians and their confidence intervals
``report``       tables, JSON, plot
``packets``      VXLAN packets, made fast
``build``        compiles what stands beside fixer, for `make launder` too
===============  ===========================================================================

``loop.c``, ``accept.py`` and ``recompute.py`` are the programs fixer is measured against, ``ask.c`` asks and answers.
What each number means is in docs/performance.md.
"""
