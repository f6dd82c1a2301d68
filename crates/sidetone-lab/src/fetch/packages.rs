//! Which packages are really needed, worked out from what apt says is available.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::{FetchError, Packages};

/// The packages of a suite, as `apt-cache dumpavail` prints them.
#[derive(Debug, Default)]
pub(super) struct Available {
    depends: BTreeMap<String, Vec<String>>,
    providers: BTreeMap<String, String>,
}

impl Available {
    pub(super) fn parse(text: &str) -> Self {
        let mut available = Self::default();
        let mut package = "";
        for line in text.lines() {
            // Only the four fields that matter; every other line, folded ones included, is passed over.
            let Some((field, value)) = line.split_once(": ") else {
                continue;
            };
            match field {
                "Package" => {
                    package = value;
                    available.depends.entry(package.to_owned()).or_default();
                }
                "Depends" | "Pre-Depends" => {
                    let groups = value.split(',').map(|group| group.trim().to_owned());
                    available
                        .depends
                        .entry(package.to_owned())
                        .or_default()
                        .extend(groups);
                }
                "Provides" => {
                    for provided in value.split(',').map(bare_name) {
                        // Of several providers the first by name, so that two machines choose alike.
                        let provider = available
                            .providers
                            .entry(provided.to_owned())
                            .or_insert_with(|| package.to_owned());
                        if package < provider.as_str() {
                            package.clone_into(provider);
                        }
                    }
                }
                _ => {}
            }
        }
        available
    }

    /// The names of all that is wanted.
    pub(super) fn choose(&self, wanted: &Packages<'_>) -> Result<Vec<String>, FetchError> {
        let missing = |name: &str| FetchError::NoSuchPackage {
            suite: wanted.suite.to_owned(),
            name: name.to_owned(),
        };
        let mut chosen = self.closure(wanted.whole, wanted.without, missing)?;
        for name in wanted.alone {
            chosen.push(self.resolve(name).ok_or_else(|| missing(name))?.to_owned());
        }
        Ok(chosen)
    }

    /// The real package behind a name, which may be a virtual one.
    fn resolve(&self, name: &str) -> Option<&str> {
        let real = self.depends.get_key_value(name).map(|(name, _)| name);
        real.or_else(|| self.providers.get(name))
            .map(String::as_str)
    }

    /// `whole` and everything it depends on, without `excluded` and what only those need.
    fn closure(
        &self,
        whole: &[&str],
        excluded: &[&str],
        missing: impl Fn(&str) -> FetchError,
    ) -> Result<Vec<String>, FetchError> {
        let mut chosen = Vec::new();
        let mut known: HashSet<&str> = excluded.iter().copied().collect();
        let mut todo: VecDeque<&str> = whole.iter().copied().collect();
        while let Some(name) = todo.pop_front() {
            if known.contains(name) {
                continue;
            }
            let real = self.resolve(name).ok_or_else(|| missing(name))?;
            // The virtual name too: a later `a | b` is then satisfied by it.
            known.insert(name);
            if real != name && !known.insert(real) {
                continue;
            }
            chosen.push(real.to_owned());
            for group in &self.depends[real] {
                let alternatives: Vec<&str> = group
                    .split('|')
                    .map(bare_name)
                    .filter(|name| !name.is_empty())
                    .collect();
                if !alternatives.iter().any(|name| known.contains(name)) {
                    todo.extend(alternatives.first());
                }
            }
        }
        Ok(chosen)
    }
}

/// `libc6:any (>= 2.38)` → `libc6`.
fn bare_name(dependency: &str) -> &str {
    let dependency = dependency.trim();
    dependency
        .split([' ', '(', ':'])
        .next()
        .unwrap_or(dependency)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SUITE: &str = "\
Package: asterisk
Version: 1:22
Depends: libc6 (>= 2.38), heavy, libssl3 | libssl1, awk-virtual, config | config-custom
Description: a line
 Depends: not-a-field

Package: libc6
Pre-Depends: libgcc:any (>= 3)

Package: libgcc
Depends: libc6

Package: libssl3

Package: mawk
Provides: awk-virtual (= 1)

Package: gawk
Provides: awk-virtual, other

Package: heavy
Depends: everything
";

    #[test]
    fn takes_what_is_needed_once_and_stops_at_the_excluded() {
        let names = choose(&["asterisk"], &["heavy", "config-custom"], &[]).unwrap();
        assert_eq!(names, ["asterisk", "libc6", "libssl3", "gawk", "libgcc"]);
    }

    #[test]
    fn takes_several_together_and_some_without_what_they_need() {
        let names = choose(&["libc6", "other", "libgcc"], &[], &["heavy"]).unwrap();
        assert_eq!(names, ["libc6", "gawk", "libgcc", "heavy"]);
    }

    #[test]
    fn names_what_the_suite_lacks() {
        for (whole, alone) in [("heavy", "libc6"), ("libc6", "everything")] {
            let error = choose(&[whole], &[], &[alone]).unwrap_err();
            let told = "Debian forky has no package `everything`; check its spelling";
            assert_eq!(error.to_string(), told);
        }
    }

    fn choose(whole: &[&str], without: &[&str], alone: &[&str]) -> Result<Vec<String>, FetchError> {
        Available::parse(SUITE).choose(&Packages {
            name: "some",
            suite: "forky",
            whole,
            without,
            alone,
            left_out: &[],
        })
    }
}
