"""A long run under mixed load with faults all the time: nothing may grow, and no promise may be broken.

``make soak`` is ``python -m tests.faults.soak --minutes 30 --out docs/pictures/soak.png``.
"""
