"""From the sweep file to recipes with identities; imports only `core`, `config` and the layers beside it."""
