"""The benchmarks: `just bench NAME`."""

from ops.commands import run

NAMES = {
    "serving": (
        "serving.serving",
        "compare kickserve with a bare server and with others, in one run; needs wrk",
    ),
    "lane": (
        "lane.lane",
        "the instructions of a prediction by stage, beside an empty application; needs valgrind",
    ),
    "paging": ("stores.paging", "stores: records a second, and pages near and far among a million records"),
    "batch": ("files.batch", "`kickserve batch` from Parquet to Parquet: kicks a second, and memory"),
    "batches": (
        "batches.batches",
        "batches as JSON, NDJSON and Parquet beside the least that they can cost, and how long others wait",
    ),
    "cluster": (
        "cluster.cluster",
        "`kickserve batch` on a Dask cluster beside one process; `--drills` kills on the way",
    ),
    "oip": ("oip.oip", "the Open Inference Protocol beside /predict and /predict/batch, JSON and binary"),
    "capacity": (
        "capacity.capacity",
        "the parts, and what gives out first at ten times as much; needs wrk and Postgres",
    ),
    "drift": (
        "files.drift",
        "a report of drift of a million kept predictions: time, memory, size of the page",
    ),
    "drift-live": ("variants.drift_live", "the cost of the live figures of drift; needs wrk"),
    "watching": ("variants.watching", "the cost of counting, /metrics and plugins that are off; needs wrk"),
    "learned": ("variants.learned", "the cost of learning for answers; needs wrk"),
    "learning": (
        "learning.learning",
        "alarms, replay, coverage, training on simulated kicks; `--jobs 2` takes about half an hour",
    ),
    "models": ("models.models", "the time of a prediction by kind of model"),
    "outcomes": ("stores.outcomes", "the time of outcomes, together and one by one"),
    "exports": ("stores.exports", "predictions beside an export, and the export beside predictions"),
    "page": (
        "page.page",
        "the page: first paint, a click, and the cost of ten open pages; needs Chromium, and wrk",
    ),
}

if __name__ == "__main__":
    run("ops.bench", "serving", NAMES)
