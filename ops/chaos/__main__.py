"""The drills: `just chaos NAME`."""

from ops.commands import run

NAMES = {
    "drills": (
        "drills.drills",
        "kill, stop and starve the service under load, and count answers against the store",
    ),
    "replicas": (
        "replicas.replicas",
        "kill replicas behind nginx, with outcomes and deletions under way; needs Debian's nginx",
    ),
    "watching": (
        "watching.watching",
        "stop the database under a real Prometheus until the alert fires; needs Debian's prometheus",
    ),
    "long": (
        "long.long",
        "an hour at half load with reports, reloads, open pages and outages: does it age? `--minutes 5`",
    ),
    "container": (
        "containers.container",
        "build the image, and run it locked up: without network, rights, and a place to write",
    ),
    "compose": (
        "containers.compose",
        "start a copy of the project by `just up`, and stop Postgres under load",
    ),
}

if __name__ == "__main__":
    run("ops.chaos", "drills", NAMES)
