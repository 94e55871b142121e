"""What `python -m benchmarks.analysis` runs."""

import sys

from benchmarks.analysis.running import main

sys.exit(main())
