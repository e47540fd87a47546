"""The figures, one file each, drawn from the tables only.

A figure defines ``draw(paths, grid, settings, figure, svg, png)``:

- ``paths``: the tables by name: metrics, thresholds, mitigations, floors;
- ``grid``: variants, axes, repairs and recipes of the study;
- ``settings``: the config's ``thresholds``: criteria (name -> metric, at) and severity ([[word, increase], ...]);
- ``figure``: name of the figure, and ``family`` for a family's;
- ``svg``, ``png``: where to write.
"""
