# The two commands of the README, and what they share. Each does its own set-up.

.PHONY: build demo test lint bench

build:
	cargo build

# Brings up a sample on this machine and shows it at work.
demo: build
	samples/demo

# Every test this machine can run; says what it skipped and why.
test:
	tests/run

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Figures, as ratios measured in one run.
bench:
	benches/run
