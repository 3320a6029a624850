"""`leash.py FOLDER PROGRAM ...` runs a program that ends, and FOLDER with it, when whoever holds its stdin is gone.

SIGKILL gives nobody the time to stop what he has started; the operating system closes his end of the pipe for him.
"""

import os
import runpy
import shutil
import signal
import sys
import threading
from pathlib import Path


class Leash:
    """Pulls at this process with SIGTERM when its stdin ends."""

    def __init__(self) -> None:
        self._alone = False
        threading.Thread(target=self._hold, daemon=True).start()

    @property
    def alone(self) -> bool:
        return self._alone

    def _hold(self) -> None:
        while os.read(0, 1):
            pass
        self._alone = True
        os.kill(os.getpid(), signal.SIGTERM)


def main(folder: str, program: str) -> None:
    leash = Leash()
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        if leash.alone:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _, folder, program, *arguments = sys.argv
    sys.argv[1:] = arguments
    sys.path[0] = str(Path(program).parent)  # as if it had been started by itself
    main(folder, program)
