//! Elastic-net logistic regression by proximal gradient, all candidates of a grid at once.
