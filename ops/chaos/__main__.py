"""The drills: `just chaos NAME`."""

from ops.commands import run

NAMES = {
    "drills": (
        "drills.main",
        "kill, stop and starve the service under load, and count answers against the store",
    ),
    "watching": (
        "watching.main",
        "stop the database under a real Prometheus until the alert fires; needs Debian's prometheus",
    ),
    "replicas": (
        "replicas.main",
        "kill one of three replicas behind nginx and restart another; needs Debian's nginx",
    ),
    "long": (
        "long.main",
        "an hour at half load with reports, reloads, open pages and outages: does it age? `--minutes 5`",
    ),
    "container": (
        "container.main",
        "build the image, and run it locked up: without network, rights, and a place to write",
    ),
    "compose": ("compose.main", "start a copy of the project by `just up`, and stop Postgres under load"),
}

if __name__ == "__main__":
    run("ops.chaos", "drills", NAMES)
