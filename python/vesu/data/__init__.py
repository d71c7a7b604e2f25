"""Everything before the features: discovery, preflight, volumes, sampling, the cache, the phantom, atomic files.

Import what you need from its module: :mod:`vesu.data.discover`, :mod:`vesu.data.preflight`, :mod:`vesu.data.volumes`,
:mod:`vesu.data.sampling`, :mod:`vesu.data.cache`, :mod:`vesu.data.phantom`, :mod:`vesu.data.storage`.
"""
