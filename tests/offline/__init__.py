"""Proof that vesu installs and runs without a network: `docs/offline_proof.md`."""
