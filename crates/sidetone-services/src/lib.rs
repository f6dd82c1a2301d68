//! Stand-ins for speech services, for tests: each speaks its service's protocol and refuses what the real
//! one refuses. Behind a feature each, as their protocols' crates are big.
