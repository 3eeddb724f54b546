"""How often the report's sentences are false: sweeps are simulated whose truth is known.

python -m benchmarks.truth [--quick]

A part is a module with `measure(quick) -> dict[str, float]`, which calls the functions that make the report. A figure
is the worst over its settings. The last line that is printed is one JSON object with all figures.
"""
