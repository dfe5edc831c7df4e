"""Runs one script in several processes at the same moment."""

from __future__ import annotations

import subprocess
import sys
import time


def run_together(script, argument, count=4):
    """Run a script that waits for a line on its standard input; fail where one of the processes does.

    Args:
        script: gets `argument` and its own number, from 0.
        argument: the same for all.
        count: how many processes.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, argument, str(number)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    time.sleep(0.8)  # until all of them wait at the line
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
