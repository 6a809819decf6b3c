"""Real builds through `imgbuilder standalone`, in a process of its own."""
