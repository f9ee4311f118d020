"""`rlhf-feedback` as a process that ends with the one that started it, also if that is killed.

    python -m rlhf_lightning.loop.page serve --project ...

Its standard input is a pipe from the process that started it: when that is gone, nobody holds the other end. A page
left behind would keep its port from the next one, and people would go on judging for nobody.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from rlhf_lightning.feedback.cli import main


def _end_with_the_other_end() -> None:
    while os.read(0, 1024):  # not by sys.stdin: Python can't end while a thread waits in it
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_other_end, daemon=True).start()
    sys.exit(main())
