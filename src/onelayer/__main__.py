"""`python -m onelayer` is the command `onelayer`."""

from .cli.main import main

raise SystemExit(main())
