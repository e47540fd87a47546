"""Where models and texts come from: one file for each kind of source, found by walking this folder."""
