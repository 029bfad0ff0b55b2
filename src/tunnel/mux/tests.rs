//! The mux alone.
