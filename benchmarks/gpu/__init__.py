"""The first hour on a GPU: `make gpu` runs `python -m benchmarks.gpu`; see docs/gpu.md."""
