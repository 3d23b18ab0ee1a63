"""Room; see the README."""
