"""``make launder``: whether any damaged packet leaves fixer's packet path with its checksums made right.

================  =====================================================================================
``__main__``      the command line: which runs, how long, and what is said of them
``runs``          each run: what traffic, what damage, what memory
``report``        the tables, and whether it failed
``build``         compiles what is below
``world``         who talks to whom, and what each of them sends
``damage``        what happens to a packet
``receiver``      what a receiver that checks everything sees in it
``judge``         what became of it: laundered, or what there was that could have told
``trial``         one run in a loop without the interpreter: make, damage, put through, judge
``sums``          checksums the plain way, and random numbers
================  =====================================================================================

Of fixer it knows the door only (``Pipeline.process``), so that it cannot be wrong in the same way. What each number
means is in docs/launder.md.
"""
