# What one does with kickserve. `just` alone lists it; each recipe makes the environment it needs by itself.

set dotenv-load := false # kickserve reads .env itself

export VENV := env("VENV", ".venv")
python := env("PYTHON", "python3")
bin := VENV / "bin"
# With COVERAGE set, the tests are measured: `just coverage` reads it.
runner := if env("COVERAGE", "") == "" { "python" } else { "coverage run" }

[private]
default:
    @just --list --unsorted

# Run the service, with what the environment and .env say
[positional-arguments]
serve *arguments: (_environment "serve")
    @{{ bin }}/kickserve serve "$@"

# Run the service for development: debug log, profiling where it is installed, SQLite
[positional-arguments]
run-local *arguments: (_environment "dev")
    @DEBUG=1 DATABASE_URL=sqlite:///kickserve-local.db {{ bin }}/kickserve serve "$@"

# Open the page in a browser; start the service first where none answers
[positional-arguments]
ui *arguments: (_environment "serve")
    @{{ bin }}/kickserve ui "$@"

# Run the tests
[positional-arguments]
test *arguments: (_environment "dev")
    @{{ bin }}/{{ runner }} -m pytest "$@"

# Run the tests, and say which lines and branches they miss
coverage: (_environment "dev")
    @{{ bin }}/coverage erase
    @COVERAGE=1 {{ just_executable() }} test -q
    @{{ bin }}/coverage combine -q
    @{{ bin }}/coverage report

# Check style and format
lint: (_environment "dev")
    @{{ bin }}/ruff check
    @{{ bin }}/ruff format --check

# Check types
types: (_environment "dev")
    @{{ bin }}/mypy

# Look for weak spots in the code, and for known vulnerabilities in what it needs
security: audit (_environment "dev")
    @{{ bin }}/bandit --quiet --configfile pyproject.toml --recursive kickserve plugins

# Look up whether packages of this environment have known vulnerabilities; AUDIT=required where that must be known
[positional-arguments]
audit *arguments: (_environment "dev")
    @{{ bin }}/python ops/audit.py "$@"

# Predict simulated kicks, through the service if one runs here: `just batch 500`, or BATCH_SIZE=500
[positional-arguments]
batch size=env("BATCH_SIZE", "1000") *options: (_environment "serve")
    @shift; {{ bin }}/kickserve batch --url auto --size {{ size }} "$@"

# The same with far kicks only, such as the model sees few of: what drift looks like
[positional-arguments]
batch-drift size=env("BATCH_SIZE", "1000") *options: (_environment "serve")
    @shift; {{ bin }}/kickserve batch --url auto --size {{ size }} --min-distance 40 "$@"

# Say whether kicks and predictions have drifted, in a report of Evidently's in data/drift_reports
[positional-arguments]
evaluate *options: (_environment "drift")
    @{{ bin }}/kickserve evaluate "$@"

# Run every check that a commit must pass
precommit: (_environment "dev")
    @{{ bin }}/pre-commit run --all-files

# Kill, stop and starve the service under load, and count what was answered against what is stored
[positional-arguments]
chaos *arguments: (_environment "dev")
    @{{ bin }}/python ops/chaos/drills.py "$@"

# Have a Prometheus watch the service, stop its database, and see the alert fire; needs Debian's package prometheus
[positional-arguments]
chaos-watching *arguments: (_environment "dev")
    @{{ bin }}/python ops/chaos/watching.py "$@"

# Compare kickserve with a bare server and with others, in one run; needs wrk
[positional-arguments]
bench *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/serving.py "$@"

# Show that a page takes the same time wherever it stands among a million records
[positional-arguments]
bench-paging *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/paging.py "$@"

# Measure `kickserve batch` from Parquet to Parquet: kicks a second, and memory
[positional-arguments]
bench-batch *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/batch.py "$@"

# Measure a report of drift of a million kept predictions: time, memory, size of the page
[positional-arguments]
bench-drift *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/drift.py "$@"

# Measure what counting, `/metrics` and plugins that are off cost; needs wrk
[positional-arguments]
bench-watching *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/watching.py "$@"

# Measure how quick each kind of model answers
bench-models: (_environment "dev")
    @{{ bin }}/python ops/bench/models.py

# Measure the page: first paint, a click, and what ten open pages cost the API; needs wrk and Chromium
[positional-arguments]
bench-page *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/page.py "$@"

# Make the pictures of the page that the README shows; needs Chromium
screenshots: (_environment "dev")
    @{{ bin }}/python ops/screenshots/take.py

# Measure what the live figures of drift cost the service: predictions a second, and memory over ten reports
[positional-arguments]
bench-drift-live *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/drift_live.py "$@"

# Build the wheel into dist/
build: (_environment "dev")
    @{{ bin }}/python -m build --wheel

_environment kind:
    @{{ python }} ops/environment.py {{ kind }}
