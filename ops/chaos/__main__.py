"""The drills: `just chaos NAME`."""

from ops.commands import run

NAMES = {
    "drills": ("drills.drills", "kill, stop and starve the service under load, and count answers"),
    "replicas": (
        "replicas.replicas",
        "kill replicas behind nginx, with outcomes and deletions under way; needs Debian's nginx",
    ),
    "resurrection": ("stores.resurrection", "lose the reply to a commit: what is deleted must stay deleted"),
    "frozen": ("stores.frozen", "freeze Postgres under load, and end the service meanwhile"),
    "restore": ("stores.restore", "move a backup of the SQLite file over the open one"),
    "upgrade": (
        "upgrade.upgrade",
        "kill an older version under load, start this one on its data, and the older one again",
    ),
    "bitflip": ("journals.bitflip", "flip a bit in each byte of a journal: all that is whole must be stored"),
    "vanished": ("journals.vanished", "remove the journal's folder under load"),
    "hang": ("strain.hang", "a model that never ends for one kick, as shadow and as model"),
    "visitors": ("strain.visitors", "ask for 10,000 pages that are never opened, beside predictions"),
    "watching": (
        "watching.watching",
        "stop the database under a real Prometheus until the alert fires; needs Debian's prometheus",
    ),
    "long": (
        "long.long",
        "an hour at half load with reports, reloads, open pages and outages: does it age? `--minutes 5`",
    ),
    "container": ("containers.container", "build the image, and run it locked up, and without a network"),
    "compose": (
        "containers.compose",
        "start a copy of the project by `just up`, and stop Postgres under load",
    ),
}

if __name__ == "__main__":
    run("ops.chaos", "drills", NAMES)
