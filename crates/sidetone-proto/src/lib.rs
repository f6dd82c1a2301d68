//! The AudioSocket wire and the rules of a call, without I/O.
