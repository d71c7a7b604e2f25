"""The fault campaign: kills, refused calls, power loss and damage, and the mutants that show that it sees them."""
