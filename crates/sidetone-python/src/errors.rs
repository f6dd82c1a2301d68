//! The exceptions of the module, beside Python's own.

use pyo3::{create_exception, exceptions::PyException};

create_exception!(
    audiosocket,
    AudioSocketError,
    PyException,
    "What all exceptions of this module have in common."
);
create_exception!(
    audiosocket,
    AsteriskFrameForwardError,
    AudioSocketError,
    "Asterisk says that it could not forward a frame of audio. Its own log says why."
);
create_exception!(
    audiosocket,
    AsteriskMemoryAllocError,
    AudioSocketError,
    "Asterisk says that it is out of memory. Its own log says more."
);
create_exception!(
    audiosocket,
    AudioSocketReadError,
    AudioSocketError,
    "What came over a connection is not AudioSocket, or its message has an impossible length."
);
create_exception!(
    audiosocket,
    AudioLaggedError,
    AudioSocketError,
    "Audio of the caller was dropped, because the event loop was blocked for too long."
);
create_exception!(
    audiosocket,
    AudioDroppedError,
    AudioSocketError,
    "Audio that the callback returned was not played, because ten minutes of it waited already."
);
