//! Telephone sound: G.711, resampling, sound files, levels, voice activity.
