//! Keeps recordings for as long as the file says, and the disk from filling up.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Weak, atomic::Ordering},
    time::{Duration, SystemTime},
};

use uuid::Uuid;

use super::Recordings;
use crate::{event::GatewayEvent, registry::Registry};

/// How often the free space is looked at: at 2000 calls a disk takes 64 MB/s of recordings.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How often old recordings are looked for.
const CLEAN_INTERVAL: Duration = Duration::from_secs(3600);

/// Recording begins again when there is this much more than the least, in per cent.
const HYSTERESIS: u64 = 5;

/// Watches the disk until the recordings are gone.
pub(super) async fn watch(recordings: Weak<Recordings>) {
    let mut cleaned: Option<tokio::time::Instant> = None;
    loop {
        let Some((recordings, registry)) = recordings
            .upgrade()
            .and_then(|it| Some((it.registry.upgrade()?, it)).map(|(registry, it)| (it, registry)))
        else {
            return;
        };
        let config = registry.config();
        if let Some(settings) = &config.recording {
            if let Some(least) = settings.min_free {
                check(&recordings, &registry, least).await;
            }
            let is_due = cleaned.is_none_or(|at| at.elapsed() >= CLEAN_INTERVAL);
            if let Some(keep) = settings.keep.filter(|_| is_due) {
                cleaned = Some(tokio::time::Instant::now());
                clean(&registry, recordings.dir.clone(), keep).await;
            }
        }
        drop((recordings, registry));
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn check(recordings: &Recordings, registry: &Registry, least: u64) {
    let dir = recordings.dir.clone();
    let Ok(Ok(free)) = tokio::task::spawn_blocking(move || free_bytes(&dir)).await else {
        // A folder that can't be looked at is reported by each recording.
        return;
    };
    let was_short = recordings.is_short_of_disk();
    let is_short = is_short(free, least, was_short);
    if is_short == was_short {
        return;
    }
    recordings
        .is_short_of_disk
        .store(is_short, Ordering::Relaxed);
    if is_short {
        for call in registry.running() {
            call.recording.stop();
        }
    }
    let (free, least) = (free / 1_000_000, least / 1_000_000);
    registry.bus.publish(GatewayEvent::Alarm {
        name: "recording_disk".into(),
        is_active: is_short,
        text: match is_short {
            true => format!(
                "{free} MB are free, less than min_free ({least} MB): calls go on unrecorded"
            ),
            false => format!("{free} MB are free: calls are recorded again"),
        },
    });
}

fn is_short(free: u64, least: u64, was_short: bool) -> bool {
    match was_short {
        true => free < least + least / 100 * HYSTERESIS,
        false => free < least,
    }
}

/// What is left for those who are not root.
fn free_bytes(dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

async fn clean(registry: &Registry, dir: PathBuf, keep: Duration) {
    let Some(before) = SystemTime::now().checked_sub(keep) else {
        return;
    };
    let removed = tokio::task::spawn_blocking(move || remove_older(&dir, before)).await;
    let text = match removed {
        Ok(Ok(0)) | Err(_) => return,
        Ok(Ok(removed)) => {
            format!("removed {removed} files of recordings that are older than keep_days")
        }
        Ok(Err(error)) => format!("can't remove recordings that are older than keep_days: {error}"),
    };
    registry.bus.publish(GatewayEvent::Notice {
        name: "recordings.removed",
        text,
    });
}

/// Removes the files of recordings that were last written before then, and nothing else.
fn remove_older(dir: &Path, before: SystemTime) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(is_of_a_recording);
        let metadata = entry.metadata()?;
        if is_ours && metadata.is_file() && metadata.modified()? < before {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether a file is named as recordings are: `TIME-UUID.wav`, `TIME-UUID-2.wav`, `TIME-UUID.txt`, `UUID.json`, and the same with
/// `.part`.
fn is_of_a_recording(name: &str) -> bool {
    let name = name.strip_suffix(".part").unwrap_or(name);
    if let Some(id) = name.strip_suffix(".json") {
        return Uuid::try_parse(id).is_ok();
    }
    let Some((time, rest)) = name
        .strip_suffix(".wav")
        .or_else(|| name.strip_suffix(".txt"))
        .and_then(|stem| stem.split_once('-'))
    else {
        return false;
    };
    let is_time = time.len() == 16 && time.ends_with('Z') && time.as_bytes()[8] == b'T';
    is_time && rest.get(..36).is_some_and(|id| Uuid::try_parse(id).is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;

    use super::*;

    #[test]
    fn recording_stops_below_the_least_and_begins_again_well_above() {
        assert!(!is_short(1000, 1000, false) && is_short(999, 1000, false));
        assert!(is_short(1049, 1000, true) && !is_short(1050, 1000, true));
    }

    #[test]
    fn only_old_files_of_recordings_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::new_v4();
        let now = SystemTime::now();
        let old = now - Duration::from_secs(100);
        let names = [
            (format!("20261122T075406Z-{id}.wav"), old, false),
            (format!("20261122T075406Z-{id}-2.wav.part"), old, false),
            (format!("{id}.json"), old, false),
            (format!("20261122T075406Z-{id}.txt"), old, false),
            (format!("20261122T075406Z-{id}.txt.part"), old, false),
            ("notes.txt".into(), old, true),
            (format!("20261122T075407Z-{id}.wav"), now, true),
            ("notes.wav".into(), old, true),
            ("settings.json".into(), old, true),
        ];
        for (name, modified, _) in &names {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(*modified).unwrap();
        }
        let before = now - Duration::from_secs(50);
        assert_eq!(remove_older(dir.path(), before).unwrap(), 5);
        for (name, _, stays) in names {
            assert_eq!(dir.path().join(&name).exists(), stays, "{name}");
        }
    }
}
