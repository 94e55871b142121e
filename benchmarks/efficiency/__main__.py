"""What `python -m benchmarks.efficiency` runs."""

import sys

from benchmarks.efficiency.running import main

sys.exit(main())
