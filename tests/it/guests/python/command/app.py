"""Says who it is and copies a file. It fails unless it was given two arguments beside its name."""

import os
import sys

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        print("Python says", os.environ["WORD"])
        with open("/in/note") as note, open("/out/note", "w") as copy:
            copy.write(note.read())
        if len(sys.argv) != 3:
            sys.exit(1)
