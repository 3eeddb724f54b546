"""The suites of public benchmarks: lm-eval's task files, and which of their questions a sweep uses.

It may import what `tasks` may, and no other folder of `tasks`.
"""
