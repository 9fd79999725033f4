# Everything a person or CI does with this repository. Needs bash, Python 3.11 or later, and pip.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments := true

# Where it is set (as in many containers), every start of a node would compile all of noti again: a second.
unexport PYTHONDONTWRITEBYTECODE

# List the recipes.
default:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list --unsorted

# After a signal just reports 130 or 143, even when the command ended well, as ours do. So commands that
# people end with Ctrl-C run on a line whose result just ignores, and the next line reports their status.
attend := 'attend() { "$@" & child=$!; trap "kill -TERM $child 2>/dev/null || true" TERM INT; ' \
    + 'while kill -0 $child 2>/dev/null; do wait $child && status=0 || status=$?; done; ' \
    + 'mkdir -p .data; echo $status >.data/status.$PPID; }; attend'
report := 'status=$(cat .data/status.$PPID); rm .data/status.$PPID; exit $status'

# NATS, three nodes and a publisher, until Ctrl-C; all encrypted: just demo tls=on
[no-exit-message]
demo *args: demo-venv
    -@{{ attend }} .venv/bin/noti demo "${@/#tls=/--tls=}"
    @{{ report }}

# All tests, or those that the arguments (pytest's) name.
[no-exit-message]
test *args: venv
    @exec .venv/bin/pytest "$@"

# One node of three in the foreground: just run node=2. Tokens: .venv/bin/noti token --key-file .data/jwt.key
[no-exit-message]
run node="1" *args: demo-venv
    @[[ "${1#node=}" == [123] ]] || { echo "just run: which node? say 1, 2 or 3: just run node=2" >&2; exit 2; }
    @mkdir -p .data; printf '%s\n' '!ChangeThisMercureHubJWTSecretKey!' >.data/jwt.key
    -@number="${1#node=}"; base=$((8300 + 100 * number)); {{ attend }} .venv/bin/noti run \
        --name "node$number" --data-dir ".data/node$number" \
        --http-addr "127.0.0.1:$((base + 2))" \
        --ops-addr "127.0.0.1:$((base + 3))" \
        --gossip-addr "127.0.0.1:$((base + 1))" \
        --rpc-addr "127.0.0.1:$base" \
        --join 127.0.0.1:8401 --join 127.0.0.1:8501 --join 127.0.0.1:8601 \
        --bootstrap-expect 3 --gossip-profile local \
        --publisher-jwt-key-file .data/jwt.key \
        --nats-url "${NOTI_NATS_URL:-nats://127.0.0.1:4222}" "${@:2}"
    @{{ report }}

# The NATS server of the nodes that `just run` starts.
[no-exit-message]
nats: demo-venv
    -@{{ attend }} .venv/bin/nats-server -js -a 127.0.0.1 -p 4222 -sd .data/nats
    @{{ report }}

# Certificates for the three local nodes and a client, in .data/certs; again, to renew them.
[no-exit-message]
certs: demo-venv
    #!/usr/bin/env bash
    set -euo pipefail
    noti() { .venv/bin/noti certs "$1" --dir .data/certs "${@:2}"; }
    renew=--renew
    if [ ! -e .data/certs/ca.pem ]; then renew=; noti init; fi
    noti issue $renew node1 node2 node3 --dns localhost --ip 127.0.0.1
    noti issue $renew --client admin

# Numbered events for NATS: just mock-publisher --rate 50
[no-exit-message]
mock-publisher *args: demo-venv
    -@{{ attend }} .venv/bin/noti mock-publisher "$@"
    @{{ report }}

# All that CI runs: format, lint, layers, dependencies, types, generated code, tests.
check: venv && all-tests
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
    .venv/bin/lint-imports --no-logo
    .venv/bin/deptry noti
    .venv/bin/deptry --optional-dependencies-dev-groups demo noti tests proto
    .venv/bin/mypy
    .venv/bin/python proto/generate.py --check

# All tests, in four processes at once: two of whole programs, which mostly wait, beside two that compute.
# The first three are printed when they have ended. env: a shell's background commands ignore Ctrl-C, and
# so would tests.
[private]
all-tests: venv
    #!/usr/bin/env bash
    set -euo pipefail
    beside=(
        "tests/browser tests/interop --ignore=tests/interop/serf"
        "tests/interop/serf tests/cli tests/publishing tests/rpc tests/soak"
        "tests/fuzz tests/k8s tests/kubernetes tests/simulation"
    )
    mkdir -p .data
    output=.data/all-tests.$$
    children=() ignored=()
    trap 'kill "${children[@]}" 2>/dev/null || true; wait || true; cat "$output".*; rm "$output".*' EXIT
    trap 'exit 143' TERM INT
    for group in "${beside[@]}"; do
        echo "pytest $group: at the same time, printed below" >&2
        read -ra rooms <<<"$group"
        env --default-signal=INT .venv/bin/pytest -p no:cacheprovider "${rooms[@]}" \
            >"$output.${#children[@]}" 2>&1 &
        children+=($!)
        for room in "${rooms[@]}"; do
            [[ $room == --* ]] || ignored+=("--ignore=$room")
        done
    done
    .venv/bin/pytest "${ignored[@]}" && status=0 || status=$?
    for child in "${children[@]}"; do
        wait "$child" && one=0 || one=$?
        if [ "$one" -gt "$status" ]; then status=$one; fi
    done
    exit "$status"

# Put the code into its canonical form.
fmt: venv
    .venv/bin/ruff format .
    .venv/bin/ruff check --fix .

# Measure (wal, snapshots, raft, failover, publish, hub, http2, transports, cores, topics, sse, tls, tokens, calls, idle, latency, bridge, gossip; options as name=value): just bench raft json=figures.json
[no-exit-message]
bench name *args: venv
    @exec .venv/bin/python -m "tests.bench.bench_$1" "${@:2}"

# The chart without Kubernetes: its pods as processes with networks of their own, rolled under load (`keys`: from pods without a key of gossip, `tls`: to TLS and back)
[no-exit-message]
k8s-rehearsal *args: venv
    -@{{ attend }} .venv/bin/python -m tests.interop.rehearsal "$@"
    @{{ report }}

# A real Prometheus watches three nodes: whether the dashboard's queries have data, and alerts fire and rest; some faults only: just monitoring NotiIsGone
[no-exit-message]
monitoring *args: venv
    -@{{ attend }} .venv/bin/python -m tests.interop.monitoring "$@"
    @{{ report }}

# The chart and the image: rendered, linted, held to schemas and policies.
test-k8s *args: venv
    .venv/bin/pytest tests/k8s "$@"

# Write the golden renderings of the chart anew; then read the difference.
k8s-golden: venv
    .venv/bin/python -m tests.k8s.rendering

# Write the image's locks anew from pyproject.toml.
lock:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ ! -x .data/lock/bin/pip-compile ]; then
        python3 -m venv .data/lock
        .data/lock/bin/pip install --quiet pip-tools
    fi
    compile() {
        .data/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
            --annotation-style=line --no-emit-options --no-emit-index-url --no-emit-find-links \
            --no-emit-trusted-host "$@" pyproject.toml
    }
    compile --extra otel --output-file k8s/requirements.lock
    compile --only-build-deps --build-deps-for wheel --output-file k8s/build.lock

# Simulate under faults: just sim seeds=1000, or tell one seed: just sim seed=42 (layer=core|nodes|gossip)
[no-exit-message]
sim *args: venv
    @exec .venv/bin/python -m tests.simulation.sim "$@"

# Feed wrong bytes to every decoder: just fuzz minutes=10, or only one: just fuzz target=snapshot; just fuzz gossip
[no-exit-message]
fuzz *args: venv
    @exec .venv/bin/python -m tests.fuzz.fuzz "$@"

# A real cluster under random trouble, and whether it kept its promises: just soak minutes=10 (seed=N nodes=3 clients=300)
[no-exit-message]
soak *args: venv
    -@{{ attend }} .venv/bin/python -m tests.soak "$@"
    @{{ report }}

# Leaders and NATS servers die under numbered events: just interop-nats minutes=2 (retention=workqueue servers=3 restarts=5)
[no-exit-message]
interop-nats *args: venv
    @exec .venv/bin/python -m tests.interop.nats "$@"

# Write the golden scenarios of the Raft core anew; then read the difference.
scenarios-rewrite: venv
    .venv/bin/python -m tests.raft.core.scenario

# Write the lists of promises, settings and metrics in README files anew, from the code.
readmes: venv
    .venv/bin/python -m tests.readmes

# Remove what recipes made: the environment, data, caches.
clean:
    rm -rf .venv .data build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
    find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything: noti with the tools of developers.
[private]
venv: (environment "dev")

# What runs nodes and NATS, a quarter of that; enough when nothing else was asked for before.
[private]
demo-venv: (environment "demo")

# .venv is made again whenever pyproject.toml or PYTHON, the interpreter to take (default: python3), is
# not what it was made from. A machine without ensurepip (Debian without python3-venv) lends its own pip.
[private]
environment extra:
    #!/usr/bin/env bash
    set -euo pipefail
    extra=$1
    python=$(command -v "${PYTHON:-python3}") || { echo "there is no ${PYTHON:-python3}; noti needs Python 3.11 or later" >&2; exit 1; }
    up_to_date() {
        cmp -s pyproject.toml .venv/made-from.toml && grep -qsE "^(dev|$extra)$" .venv/made-for &&
            { [ -z "${PYTHON:-}" ] || grep -qxF "$python" .venv/made-by; }
    }
    up_to_date && exit
    mkdir -p .data
    exec 9>.data/venv.lock
    if command -v flock >/dev/null; then flock 9; fi  # several terminals may start at once
    up_to_date && exit
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "noti needs Python 3.11 or later as $python; this is $("$python" --version 2>&1)" >&2
        exit 1
    fi
    if grep -qs dev .venv/made-for; then extra=dev; fi
    say() {
        if [ -t 2 ]; then printf '\r\033[K%s' "$1" >&2; elif [ -n "${2:-}" ]; then echo "$1" >&2; fi
    }
    say "preparing .venv, once" last
    if [ ! -x .venv/bin/python ] || { [ -n "${PYTHON:-}" ] && ! grep -qsxF "$python" .venv/made-by; }; then
        "$python" -m venv --clear .venv >/dev/null 2>&1 || "$python" -m venv --without-pip --clear .venv
    fi
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    if .venv/bin/python -m pip --version >/dev/null 2>&1; then
        pip=(.venv/bin/python -m pip)
    else
        pip=(python3 -m pip --python .venv/bin/python)
    fi
    "${pip[@]}" install --progress-bar off --editable ".[$extra]" | {
        packages=0
        while read -r verb package rest; do
            case $verb in
                Collecting) say "preparing .venv, once: package $((++packages)), $package" ;;
                Installing) [ "$package" = build ] || say "preparing .venv, once: installing" last ;;
            esac
        done
        if [ -t 2 ]; then echo >&2; fi
    }
    echo "$python" >.venv/made-by
    echo "$extra" >.venv/made-for
    cp pyproject.toml .venv/made-from.toml
