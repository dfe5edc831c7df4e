# Everyday tasks. `just` alone lists them; each recipe makes the environment that it needs.

set dotenv-load := false # kickserve reads .env itself
set positional-arguments

export VENV := env("VENV", ".venv")
export PYTHON := env("PYTHON", "")
python := VENV / "bin/python"
kickserve := VENV / "bin/kickserve"

[private]
default:
    @just --list --unsorted

# Run the service, set up by the environment and .env
[group('use')]
serve *arguments: (_environment "serve")
    @{{ kickserve }} serve "$@"

# Open the page in a browser; start the service first if none answers
[group('use')]
ui *arguments: (_environment "serve")
    @{{ kickserve }} ui "$@"

# Predict new simulated kicks, through a running service if there is one: `just batch 500`, or BATCH_SIZE=500
[group('use')]
batch size=env("BATCH_SIZE", "1000") *options: (_environment "serve")
    @shift; {{ kickserve }} batch --url auto --size {{ size }} --seed "$(date +%s)" "$@"

# Predict simulated kicks from 40 m and more, which drift from the training data
[group('use')]
batch-drift size=env("BATCH_SIZE", "1000") *options: (_environment "serve")
    @shift; {{ kickserve }} batch --url auto --size {{ size }} --seed "$(date +%s)" --min-distance 40 "$@"

# Report whether kicks and predictions have drifted, as HTML and JSON in data/drift_reports
[group('use')]
evaluate *options: (_environment "evaluate")
    @{{ kickserve }} evaluate "$@"

# Start service and Postgres in containers; makes .env with secrets if it is missing; `--watch` adds Grafana
[group('containers')]
up *arguments:
    @python3 ops/compose.py up "$@"

# Stop the containers; `--volumes` deletes their data too
[group('containers')]
down *arguments:
    @python3 ops/compose.py down "$@"

# Build the image without a cache on the newest base, and start it
[group('containers')]
rebuild *arguments:
    @python3 ops/compose.py rebuild "$@"

# Show the logs of the containers: `just logs --follow`
[group('containers')]
logs *arguments:
    @python3 ops/compose.py logs "$@"

# Build the image: `just image`, `just image TAG --build-arg EXTRAS=metrics,postgres`
[group('containers')]
image *arguments:
    @python3 ops/compose.py image "$@"

# Run the service for development: debug log, profiles, SQLite
[group('develop')]
run-local *arguments: (_environment "all")
    @DEBUG=1 DATABASE_URL=sqlite:///kickserve-local.db {{ kickserve }} serve "$@"

# Run the tests, except those marked slow: `just test tests/test_api.py -k predict`
[group('develop')]
test *arguments: (_environment "test")
    @{{ python }} -m pytest -m "not slow" "$@"

# Run all tests, with the packages that only some need
[group('develop')]
test-all *arguments: (_environment "all")
    @{{ python }} -m pytest "$@"

# Run all tests, and list the lines that they miss
[group('develop')]
coverage: (_environment "all")
    @{{ python }} -m coverage erase
    @{{ python }} -m coverage run -m pytest -q
    @{{ python }} -m coverage combine -q
    @{{ python }} -m coverage report

# Check style, format and types
[group('develop')]
lint: (_environment "all")
    @{{ python }} -m ruff check
    @{{ python }} -m ruff format --check
    @{{ python }} -m mypy

# Run every check that a commit must pass: lint, and the files that machines read (.pre-commit-config.yaml)
[group('develop')]
check: (_environment "all")
    @{{ python }} -m pre_commit run --all-files

alias precommit := check

# Look up known vulnerabilities of the installed packages; `--strict` fails if a package can't be looked up
[group('develop')]
audit *arguments: (_environment "all")
    @{{ python }} -m pip_audit --progress-spinner off --skip-editable "$@"

# Measure: compare kickserve with other servers, or `just bench NAME`; `just bench --list` names the benchmarks
[group('measure')]
bench *arguments: (_environment "all")
    @{{ python }} -m ops.bench "$@"

# Count the instructions of a prediction by stage, on a busy machine too
[group('measure')]
bench-lane *arguments: (_environment "all")
    @{{ python }} -m ops.bench lane "$@"

# Kill, stop and starve the service under load, or `just chaos NAME`; `just chaos --list` names the drills
[group('measure')]
chaos *arguments: (_environment "all")
    @{{ python }} -m ops.chaos "$@"

# Attack the service with requests made up on the way: `just fuzz NAME`; `just fuzz --list` names the attacks
[group('measure')]
fuzz *arguments: (_environment "all")
    @{{ python }} -m ops.fuzz "$@"

# Make the reference in ops/docs/reference out of the code: settings, commands, calls, metrics, extras
[group('publish')]
reference: (_environment "all")
    @{{ python }} -m ops.reference

# Build the wheel and the source archive into dist/
[group('publish')]
build: (_environment "all")
    @{{ python }} -m build

# Build the documents as a site in build/site; fails where a link leads nowhere
[group('publish')]
site: (_environment "all")
    @{{ python }} -m sphinx --fail-on-warning --keep-going --quiet -c ops/site ops/docs build/site
    @cp build/site/README.html build/site/index.html

# Collect the files of a Hugging Face Space in build/space, or upload them: `--upload OWNER/NAME`
[group('publish')]
space *arguments: (_environment "serve")
    @{{ python }} ops/space.py "$@"

# Take the screenshots of the README; needs Chromium
[group('publish')]
screenshots: (_environment "all")
    @{{ python }} -m ops.screenshots.take

# Make the environment, or bring it up to date after a change of pyproject.toml. A stamp for each kind of
# environment makes the next call take milliseconds. uv takes seconds; without uv, pip does the same.
_environment kind:
    #!/bin/sh
    set -eu
    stamp="$VENV/kickserve-$1"
    [ -x "$VENV/bin/python" ] && [ "$stamp" -nt pyproject.toml ] && exit
    case $1 in
        serve) set -- -e '.[ui]' ;;
        evaluate) set -- -e '.[reports,ui]' ;;
        test) set -- -e '.[excel,metrics,otel,parquet,postgres,profiling,reports,sklearn,ui]' --group test ;;
        all) set -- -e '.[all]' --group dev ;;
    esac
    echo "making the environment $VENV" >&2
    if command -v uv >/dev/null; then
        [ -x "$VENV/bin/python" ] || uv venv --quiet --clear --seed ${PYTHON:+--python "$PYTHON"} "$VENV"
        uv pip install --quiet --python "$VENV/bin/python" "$@"
    else
        [ -x "$VENV/bin/pip" ] || "${PYTHON:-python3}" -m venv "$VENV"
        "$VENV/bin/pip" install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' # knows --group
        "$VENV/bin/pip" install --quiet --disable-pip-version-check "$@"
    fi
    touch "$stamp"

# Names of the version before, for one version more.
import 'ops/renamed.just'
