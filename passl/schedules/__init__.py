"""Learning rates as pure functions of the update number.

A schedule never remembers where it is: the rate of update ``k`` (0-based) is ``schedule(k)``, so a
resumed run is on the same curve by construction.  Every shape takes a warm-up, every warm-up may be
as long as the run or longer, and no combination of lengths divides by zero.
"""
