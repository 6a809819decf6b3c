"""``python -m imgbuilder`` is the command ``imgbuilder``."""

from imgbuilder.cli.main import main

main()
