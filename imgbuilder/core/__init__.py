"""Pure decisions: no clock, random, environment, I/O, logging or async."""
