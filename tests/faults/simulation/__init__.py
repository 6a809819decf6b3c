"""The real orchestrator in a world that is made up, in virtual time: one seed is one run, the same each time.

`run` runs a seed. `scenario` draws from it what will happen, `world` is the truth, `manager`, `registry` and
`supervisor` stand between the truth and the service and let `faults` decide what becomes of every message,
`clients` call, `invariants` judges, `trace` remembers.
"""
