"""Every parser of what comes from outside, against any input: it is understood, or refused with a documented error.

200 inputs to each, the same in every run. ``FUZZ_EXAMPLES=20000`` tries so many, other ones each time.
`docs/guarantees.md` lists the parsers.
"""
