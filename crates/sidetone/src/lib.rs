//! AudioSocket server for Asterisk: put programs on phone calls.
