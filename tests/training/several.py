"""Run several ``flowmo`` commands one after the other in the same processes, to start those only once: each argument is
a JSON list. Ends with the first exit code that is not 0."""

from __future__ import annotations

import json
import sys

from flowmo.cli.main import main
from flowmo.training import World

world = World.join("cpu")
for text in sys.argv[1:]:
    code = main(json.loads(text))
    if code:
        sys.exit(code)
world.leave()
