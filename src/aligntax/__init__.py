"""Survey the alignment tax of a language model before training."""

__version__ = "0.1.0"
