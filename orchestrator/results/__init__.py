"""The results folder and its files; imports `ledger` and the layers below, no `tasks`, `cluster` or `tune`."""
