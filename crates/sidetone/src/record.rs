mod tap;

pub(crate) use tap::{Side, Tap, TapWriter};
