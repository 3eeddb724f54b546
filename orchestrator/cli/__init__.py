"""The command line; imports every layer, but only inside the function of a command, so that `--help` is instant."""
