"""The stored answers, block by block; imports only `core`, `config` and the layers beside it."""
