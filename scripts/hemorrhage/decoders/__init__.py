"""The decoders: one file each; the docstring of ``generation.py`` says what they define."""
