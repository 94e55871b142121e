"""What `python -m benchmarks.tiny_imagenet` runs."""

import sys

from benchmarks.tiny_imagenet.running import main

sys.exit(main())
