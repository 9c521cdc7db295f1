"""A seeded fuzzer over everything public; `python -m fuzz --help` in `tests/`, or `make fuzz`."""
