"""Which engine, precision, threads and batch size are best for a goal, on the machine at hand.

candidates: what could be asked for here. heats: who is tried how often. laps: what one try measures. report: what was
found. run: from the first candidate to the profile.
"""
