//! What the operator wants, checked once.
