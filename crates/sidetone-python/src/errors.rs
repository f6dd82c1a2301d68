//! The exceptions of the module, beside Python's own.

use pyo3::{PyErr, create_exception, exceptions::PyException};
use sidetone::PlayError;

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
    "Audio that the callback returned was left out, because the call was behind by it for seconds, or ten minutes waited."
);
create_exception!(
    audiosocket,
    CallEndedError,
    AudioSocketError,
    "The call is over, so nothing can be played, recorded or heard of it any more."
);
create_exception!(
    audiosocket,
    ClearedError,
    AudioSocketError,
    "What this belonged to was cleared or stopped, so nothing more of it is played."
);
create_exception!(
    audiosocket,
    PlaybackFullError,
    AudioSocketError,
    "There is no room for it in the playback buffer: wait until something of that has been heard, or make it larger."
);
create_exception!(
    audiosocket,
    SoundError,
    AudioSocketError,
    "A sound file can't be read; the message says why and what to do."
);
create_exception!(
    audiosocket,
    RecordingError,
    AudioSocketError,
    "A call can't be recorded; the message says why and what to do."
);

/// Why something can't be played.
pub(crate) fn play_error(error: PlayError) -> PyErr {
    let message = error.to_string();
    match error {
        PlayError::Closed => CallEndedError::new_err(message),
        PlayError::Cleared => ClearedError::new_err(message),
        PlayError::Full => PlaybackFullError::new_err(message),
        _ => AudioSocketError::new_err(message),
    }
}
