//! The compiled half of the Python module `audiosocket`; the other half is in `python/audiosocket`.
//!
//! No thread of the library ever takes the GIL. What happens on calls makes a file descriptor readable that the event loop
//! watches, and the loop's thread then deals with all calls in one go.

mod attachment;
mod call;
mod callbacks;
mod caller;
mod errors;
mod executor;
mod forked;
mod listener;
mod notifier;
mod peer;
mod samples;
mod server;
mod sound;
mod types;

/// What `python/audiosocket` is made of. It is not for programs.
#[pyo3::pymodule]
mod _core {
    use pyo3::{prelude::*, types::PyModule};

    #[pymodule_export]
    use crate::{
        call::{Call, Live, Mark, Playback, Recording, Utterance},
        callbacks::CallbackServer,
        caller::{PlacedCall, greeting, place_call, voice},
        errors::{
            AsteriskFrameForwardError, AsteriskMemoryAllocError, AudioDroppedError,
            AudioLaggedError, AudioSocketError, AudioSocketReadError, CallEndedError, ClearedError,
            PlaybackFullError, RecordingError, SoundError,
        },
        forked::begin_forked_child,
        server::{AdmissionRequest, Server},
        sound::{
            Clip, Resampler, VoiceDetector, decode_alaw, decode_ulaw, encode_alaw, encode_ulaw,
            resample,
        },
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
