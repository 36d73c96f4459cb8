"""The command line, with other limits than a user can set:

python -m tests.integration.run_worker '{"flush_every_s": 0}' worker --json …
"""

from __future__ import annotations

import json
import sys
from functools import partial

from streams.cli.main import main
from streams.runtime import worker
from streams.runtime.context import Limits

if __name__ == "__main__":
    # What a worker takes where it is given no limits.
    setattr(worker, "Limits", partial(Limits, **json.loads(sys.argv[1])))  # noqa: B010
    main(sys.argv[2:])
