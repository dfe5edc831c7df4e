"""Runs one script in several processes at the same moment."""

from __future__ import annotations

import subprocess
import sys


def run_together(script, argument, count=4):
    """Run a script that writes a line, and waits for one; fail where one of the processes does.

    Args:
        script: gets `argument` and its own number, from 0.
        argument: the same for all.
        count: how many processes.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, argument, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for process in started:
        process.stdout.readline()  # now it waits
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
