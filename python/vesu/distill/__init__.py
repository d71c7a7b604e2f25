"""Teachers, soft labels, the student and its training; torch loads when it is used.

Import what you need from its module: :mod:`vesu.distill.training_state`.
"""
