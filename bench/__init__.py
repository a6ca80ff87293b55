"""Benchmarks and fault drills of the whole pipeline. Imports everything; nothing imports it."""
