"""Pure theory of alignment depth: harm information, equilibria, recovery. Numpy in, no models, no files."""
