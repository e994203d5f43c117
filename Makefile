# Everything a bare checkout needs: every target first installs what it lacks (tools/install) and then does its work.
#   PYTHON=python3.12   the interpreter for .venv, 3.11 or newer
#   ARGS="-k vlan"      handed to pytest, to the benchmark, to launder, or to kernels

python := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo lint format clean
.PHONY: test test-all-pythons sanitize launder nat cure dropins cycles guard faults soak finishing kernels test-elk
.PHONY: bench deploy-files pages finish
.PHONY: wheels bundle image release test-wheels test-bundle test-image test-swarm test-release test-reproducible

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name what; do printf '  make %-17s %s\n' "$$name" "$$what"; done

demo:  ## show the fault and its repair on two hosts in network namespaces
	@tools/install run
	@$(python) -m fixer demo

test:  ## run the tests but those marked long (without root: what needs it is skipped)
	@tools/install run test
	@$(python) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-all-pythons:  ## build the distribution, install it under every other Python at hand, run the tests that need no root
	@tools/install run test
	@tools/test-all-pythons

lint:  ## ruff, mypy --strict, cython-lint
	@tools/install run test dev
	@$(python) -m ruff check
	@$(python) -m ruff format --check
	@$(python) -m mypy
	@PATH="$$PWD/.venv/bin:$$PATH" cython-lint fixer launder fuzz

format:  ## let ruff put the code in order
	@tools/install run test dev
	@$(python) -m ruff check --fix
	@$(python) -m ruff format

sanitize:  ## run the tests of the compiled code under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/install run test
	@tools/sanitize

FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz:  ## any bytes into what reads strangers' bytes, led by coverage, under both sanitizers (FUZZ_SECONDS=600 of each; ARGS=pcap: one)
	@tools/install run test fuzz
	@tools/fuzz $(FUZZ_SECONDS) $(ARGS)

bench:  ## throughput and CPU next to no rule, a C loop, a callback; scan next to tshark (root, half an hour; ARGS=--quick: 2)
	@tools/install run bench
	@$(python) -m bench $(ARGS)

nat:  ## what NAT, NICs and paths that eat packets do to checksums, on real kernels: each cause, damage beside it (root, 5 minutes)
	@tools/install run test
	@$(python) -m pytest -m long tests/e2e/test_nat.py tests/e2e/test_outgoing.py $(ARGS)

.PHONY: timestamps
timestamps:  ## a gigabyte of normalised connections, a million SYNs against them; make test has less of both (root, 2 minutes)
	@tools/install run test
	@$(python) -m pytest -m long tests/e2e/test_timestamps.py $(ARGS)

cure:  ## udevd, NetworkManager and ifupdown of Debian, booted, keep what fixer cure wrote (root, a minute)
	@tools/install run test
	@mkdir -p build/cure
	@cd build/cure && [ -e .complete ] || { apt-get -q -o APT::Sandbox::User=root download udev libudev1 ifupdown network-manager libnm0 libndp0 \
		libteamdctl0 libjansson4 libmm-glib0 libpolkit-gobject-1-0 libpsl5 libbluetooth3 libcurl3-gnutls libreadline8 && touch .complete; }
	@$(python) -m pytest -m long tests/cure/test_booted.py $(ARGS)

finishing:  ## fixer on --scope kernel on every path of the lab, killed, off, beside others; each state; damage (root, half an hour)
	@tools/install run test
	@$(python) -m pytest -m long tests/e2e/test_finishing.py tests/e2e/test_finishing_matrix.py $(ARGS)
	@$(python) -m launder --kernel --quick
	@$(python) -m launder --marks --quick

test-elk:  ## the log in a real Elasticsearch, shipped by a real rsyslog, both stopped and started (root, Java, 10 minutes)
	@tools/install run test elk
	@$(python) -m pytest -m long tests/elk $(ARGS)

deploy-files:  ## write deploy/elk, deploy/prometheus and the manual's lists anew, from the lists in the code
	@tools/install run
	@$(python) -m deploy

dropins:  ## the service in its sandbox, booted, with each drop-in that the documents recommend (root, a minute)
	@tools/install run test
	@$(python) -m pytest -m long tests/telemetry/test_service.py $(ARGS)

launder:  ## 200 million damaged packets through the packet path: is one made right? (15 minutes; ARGS=--quick: 1)
	@tools/install run
	@$(python) -m launder $(ARGS)

cycles:  ## on and off 1,000 times for each backend under one TCP connection over a broken wire (root, half an hour; FIXER_CYCLES=N)
	@tools/install run test
	@$(python) -m pytest -s -q tests/e2e/cycles.py $(ARGS)

guard:  ## each way of losing the rule under one TCP connection, Docker's own rules too: seen and put back? (root, 4 minutes)
	@tools/install run test guard
	@$(python) -m pytest -s -q tests/e2e/guard.py $(ARGS)
	@$(python) -m pytest -s -q -m long tests/host/test_timer.py

faults:  ## what fails around the daemon or in it, under traffic over a broken wire; writes docs/reliability.md (root, 20 minutes)
	@tools/install run test
	@$(python) -m pytest -s -q tests/e2e/faults.py $(ARGS)

soak:  ## traffic with faults, rules lost, reloads and rotations coming and going: does anything grow? (root, an hour; FIXER_SOAK=SECONDS)
	@tools/install run test bench
	@$(python) -m pytest -s -q tests/e2e/soak.py $(ARGS)

kernels:  ## fixer on Debian's kernels, 5.10 and newer, each booted under QEMU (root; ARGS=NAME: one of them; docs/compatibility.md)
	@tools/install run test kernels
	@$(python) -m kernels $(ARGS)

pages:  ## docs/causes.md and docs/conclusions.md, from what is in the tree
	@tools/install run test
	@PYTHONPATH=tests $(python) -m support.pages

finish:  ## the program that finishes packets in the kernel, from its source (clang 14, llvm 14; docs/kernel.md)
	@tools/finish

wheels:  ## fixer and its dependencies for Python 3.11 to 3.13 on x86_64 and aarch64 with glibc 2.17, in dist
	@packaging/wheels

test-wheels: wheels  ## they ask for no newer glibc, and install without a network
	@tools/install run test
	@DIST=$$PWD/dist $(python) -m pytest $(ARGS) tests/release/test_wheels.py

bundle: wheels  ## /opt/fixer with a Python of its own, as tar.xz, .deb and .rpm for both machines, in dist
	@packaging/bundle
	@packaging/packages

test-bundle: bundle  ## from bare systems that boot, without Python, to a repaired path, and back to nothing (root)
	@tools/install run test roots
	@packaging/roots
	@DIST=$$PWD/dist $(python) -m pytest $(ARGS) tests/release/test_bundle.py tests/release/test_unit.py tests/release/test_packages.py

release: bundle image  ## all of that in one directory with checksums, SBOM and what installs it (KEY=FILE: an SSH key signs)
	@packaging/release

test-release: release  ## what is not as released is refused; from that directory to the first repair in a minute (root)
	@tools/install run test roots
	@$(python) -m pip install -q -r packaging/judges.txt
	@packaging/roots
	@DIST=$$PWD/dist $(python) -m pytest $(ARGS) tests/release/test_release.py

image: bundle  ## a container image for each machine, in dist (mmdebstrap, buildah); deploy/ runs it
	@tools/install run image
	@packaging/image

test-image: image  ## under podman, with what deploy/ gives it, it repairs a path and leaves no rule; the manifests are right
	@tools/install run test
	@$(python) -m pip install -q -r packaging/judges.txt
	@DIST=$$PWD/dist $(python) -m pytest $(ARGS) tests/release/test_image.py

test-swarm: image  ## a Docker Swarm of two nodes whose HTTP times out, until deploy/swarm carries it (root, 2 minutes)
	@tools/install run test swarm
	@DIST=$$PWD/dist $(python) -m pytest -s -m long $(ARGS) tests/release/test_swarm.py

test-reproducible: release  ## build everything a second time, elsewhere, and compare byte by byte (half an hour)
	@rm -rf build/again
	@BUILD=$$PWD/build/again/work DIST=$$PWD/build/again/dist $(MAKE) --no-print-directory release
	@DIST=$$PWD/dist $(python) -m pytest $(ARGS) tests/release/test_release.py -k two_builds

clean:  ## remove what was built and installed here (system packages stay)
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis bench/results *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find fixer -name '*.so' -exec rm -f {} + -o -name '*.c' ! -name '*.bpf.c' -exec rm -f {} +
