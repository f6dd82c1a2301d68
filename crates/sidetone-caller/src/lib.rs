//! Plays the part of Asterisk on an AudioSocket connection.
