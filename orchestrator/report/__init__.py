"""Figures, tables, sentences and the page; imports `results` and the layers below, no `tasks`, `cluster` or `tune`."""
