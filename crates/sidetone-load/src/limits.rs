use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::LoadError;

/// Descriptors for what this program has open besides its calls.
const SPARE: u64 = 32;

/// Raises the soft limit on descriptors to what `calls` calls need that take `each` descriptors.
pub(crate) fn raise_descriptors(calls: usize, each: u64) -> Result<(), LoadError> {
    let limits = getrlimit(Resource::Nofile);
    let Some(current) = needed_limit(limits, calls, each)? else {
        return Ok(());
    };
    let raised = Rlimit {
        current: Some(current),
        ..limits
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|source| LoadError::system("raise the limit of descriptors", source))
}

/// The limit to set, if the current one is too low.
fn needed_limit(limits: Rlimit, calls: usize, each: u64) -> Result<Option<u64>, LoadError> {
    let needed = calls as u64 * each + SPARE;
    match limits.maximum {
        Some(limit) if limit < needed => Err(LoadError::Descriptors {
            calls,
            needed,
            limit,
        }),
        _ if limits.current.is_none_or(|current| current >= needed) => Ok(None),
        _ => Ok(Some(needed)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn limits(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    #[test]
    fn the_limit_is_raised_only_when_it_is_too_low() {
        let low = limits(Some(1024), Some(20_000));
        assert_eq!(needed_limit(low, 100, 1).unwrap(), None);
        assert_eq!(needed_limit(low, 1000, 1).unwrap(), Some(1032));
        assert_eq!(needed_limit(low, 1000, 2).unwrap(), Some(2032));
        assert_eq!(needed_limit(limits(None, None), 60_000, 1).unwrap(), None);
        assert_eq!(
            needed_limit(limits(Some(10), None), 100, 1).unwrap(),
            Some(132)
        );
    }

    #[test]
    fn a_hard_limit_that_is_too_low_is_an_error() {
        let error = needed_limit(limits(Some(1024), Some(4096)), 5000, 1).unwrap_err();
        assert!(error.to_string().contains("4096"), "{error}");
    }
}
