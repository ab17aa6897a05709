"""``python -m relevo``, the same as ``relevo``."""

from relevo.cli import main

main()
