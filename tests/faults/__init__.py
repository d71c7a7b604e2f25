"""The fault campaign: what must survive is cut, refused, lost and damaged in every way, and must still be there.

- ``shim.c``, ``shim.py``: stand between a program and its file calls; count, kill, refuse, shorten, record.
- ``disk.py``: a disk that loses what was not synced; from a record, every state that a power cut may leave.
- ``workloads.py`` (log, zip), ``checkpoints.py`` (first save, rotation, resume): the programs and their judges.
- ``injection.py``: kills and refused calls; ``power.py``: power cuts; ``damage.py``: bits and files changed on disk.
- ``mutants.py``: the program with one safeguard removed, which the campaign must catch.
- ``campaign.py``: all of it, ``--short`` or ``--full``, with its figures as JSON.
"""
