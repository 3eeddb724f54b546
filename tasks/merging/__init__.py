"""Merging by mergekit's methods, to a checkpoint on disk or straight into a running engine.

It may import what `tasks` may, and no other folder of `tasks`.
"""
