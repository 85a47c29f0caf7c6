"""``python -m flowmo``, which works from a source tree without installation."""

import sys

from .cli.main import main

sys.exit(main())
