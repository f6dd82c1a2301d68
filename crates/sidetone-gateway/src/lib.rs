//! The voice gateway.
