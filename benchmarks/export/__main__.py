"""What `python -m benchmarks.export` runs."""

import sys

from benchmarks.export.running import main

sys.exit(main())
