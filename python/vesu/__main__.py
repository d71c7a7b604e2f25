"""``python -m vesu``."""

from vesu.cli import main

raise SystemExit(main())
