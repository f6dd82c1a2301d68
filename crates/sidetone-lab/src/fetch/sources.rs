//! Which Debian mirror this machine uses, read from its apt sources.

use std::path::Path;

use super::FetchError;

/// Names a mirror by hand, for machines whose apt sources have none (an Ubuntu, say).
pub(super) const MIRROR_VARIABLE: &str = "SIDETONE_DEBIAN_MIRROR";

/// The address of Debian's main archive as this machine's apt knows it.
pub(super) fn mirror() -> Result<String, FetchError> {
    match std::env::var(MIRROR_VARIABLE) {
        Ok(given) if !given.is_empty() => Ok(given),
        _ => mirror_in(Path::new("/etc/apt")).ok_or(FetchError::NoMirror),
    }
}

fn mirror_in(apt: &Path) -> Option<String> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(folder) = std::fs::read_dir(apt.join("sources.list.d")) {
        let mut parts: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let sources: Vec<Source> = files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            match file.extension().and_then(|ending| ending.to_str()) {
                Some("list") => one_line(&text),
                Some("sources") => deb822(&text),
                _ => Vec::new(),
            }
        })
        .collect();
    // Debian's own keys are the surest sign; without them, the address has to look like Debian's archive.
    let by_key = sources
        .iter()
        .find(|source| source.is_main_archive() && source.has_debian_key());
    let by_name = || {
        sources
            .iter()
            .find(|source| source.is_main_archive() && source.has_debian_address())
    };
    by_key.or_else(by_name).map(|source| source.address.clone())
}

/// One address of one apt source.
#[derive(Debug, Default, PartialEq)]
struct Source {
    address: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

impl Source {
    fn is_main_archive(&self) -> bool {
        let path = self.address.trim_end_matches('/');
        self.components.iter().any(|component| component == "main")
            && !path.ends_with("-security")
            && !self
                .suites
                .iter()
                .all(|suite| suite.contains("-security") || suite.contains("-backports"))
    }

    fn has_debian_key(&self) -> bool {
        self.signed_by.contains("debian-archive")
    }

    fn has_debian_address(&self) -> bool {
        let path = self.address.trim_end_matches('/');
        path.ends_with("/debian") || path.ends_with("/debian.list")
    }
}

/// Reads lines of the form `deb [options] address suite component…`.
fn one_line(text: &str) -> Vec<Source> {
    let line = |line: &str| {
        let mut rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t']) {
            return None;
        }
        rest = rest.trim_start();
        let mut signed_by = String::new();
        if let Some(options) = rest.strip_prefix('[') {
            let (options, after) = options.split_once(']')?;
            let key = options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="));
            signed_by = key.unwrap_or_default().to_owned();
            rest = after;
        }
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source {
            address: words.next()?,
            suites: vec![words.next()?],
            components: words.collect(),
            signed_by,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Reads paragraphs of `Field: value` lines.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut paragraph = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            sources.extend(paragraph_sources(&paragraph));
            paragraph.clear();
        } else if !line.starts_with('#') {
            paragraph.push(line);
        }
    }
    sources
}

fn paragraph_sources(lines: &[&str]) -> Vec<Source> {
    let field = |name: &str| -> String {
        let mut value = String::new();
        let mut inside = false;
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if inside {
                    value.push_str(line);
                }
            } else if let Some((key, rest)) = line.split_once(':') {
                inside = key.eq_ignore_ascii_case(name);
                if inside {
                    value.push_str(rest);
                }
            }
        }
        value.trim().to_owned()
    };
    let words = |name: &str| {
        field(name)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if field("Enabled").eq_ignore_ascii_case("no")
        || !words("Types").iter().any(|kind| kind == "deb")
    {
        return Vec::new();
    }
    let source = |address| Source {
        address,
        suites: words("Suites"),
        components: words("Components"),
        signed_by: field("Signed-By"),
    };
    words("URIs").into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        mirror_in(folder.path())
    }

    #[test]
    fn one_line_sources_give_the_mirror_as_written() {
        let list = "# deb http://old.invalid/debian sid main\n\
                    deb-src http://src.invalid/debian bookworm main\n\
                    deb [arch=amd64] http://mirror.invalid/debian/ bookworm main contrib # the office mirror\n";
        assert_eq!(
            machine(&[("sources.list", list)]).unwrap(),
            "http://mirror.invalid/debian/"
        );
    }

    #[test]
    fn deb822_sources_give_the_mirror_and_not_the_security_archive() {
        let security = "Types: deb\nURIs: http://mirror.invalid/debian-security\nSuites: bookworm-security\nComponents: main\n\
                        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let main = "\nTypes: deb deb-src\n# URIs: http://commented.invalid/debian\nURIs: http://mirror.invalid/debian\n\
                    Suites: bookworm\n bookworm-updates\nComponents: main\n";
        let both = format!("{security}{main}");
        assert_eq!(
            machine(&[("sources.list.d/debian.sources", &both)]).unwrap(),
            "http://mirror.invalid/debian"
        );
    }

    #[test]
    fn a_mirror_of_unusual_name_is_known_by_its_key() {
        let list = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://proxy.invalid/remote-deb trixie main\n\
                    deb http://other.invalid/debian trixie main\n";
        assert_eq!(
            machine(&[("sources.list.d/a.list", list)]).unwrap(),
            "http://proxy.invalid/remote-deb"
        );
    }

    #[test]
    fn third_parties_disabled_sources_and_other_files_are_passed_over() {
        let third = "deb https://vendor.invalid/linux/debian bookworm stable\n\
                     deb http://mirror.invalid/ubuntu noble main universe\n";
        let disabled = "Types: deb\nURIs: http://off.invalid/debian\nSuites: sid\nComponents: main\nEnabled: no\n";
        let files = [
            ("sources.list", third),
            ("sources.list.d/off.sources", disabled),
            (
                "sources.list.d/b.list.disabled",
                "deb http://off.invalid/debian sid main\n",
            ),
        ];
        assert_eq!(machine(&files), None);
    }
}
