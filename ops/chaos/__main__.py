"""The drills: `just chaos NAME`."""

from ops.commands import run

NAMES = {
    "drills": "kill, stop and starve the service under load, and count answers against the store",
    "watching": "stop the database under a real Prometheus until the alert fires; needs Debian's prometheus",
    "replicas": "kill one of three replicas behind nginx and restart another; needs Debian's nginx",
    "long": "an hour at half load with reports, reloads, open pages and outages: does it age? `--minutes 5`",
    "container": "build the image, and run it locked up: without network, rights, and a place to write",
    "compose": "start a copy of the project by `just up`, and stop Postgres under load",
}

if __name__ == "__main__":
    run("ops.chaos", "drills", NAMES)
