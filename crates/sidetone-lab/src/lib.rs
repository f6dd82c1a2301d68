//! A real Asterisk for the tests of Sidetone, fetched and run without root.

pub mod fetch;
