"""Model files on this node: fetched, checked, identified; imports only `core`, `config` and the layers beside it."""
