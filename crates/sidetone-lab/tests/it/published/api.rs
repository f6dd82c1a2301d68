//! The public API of `sidetone`, item by item. Much of it lies in the crates below, whose items `sidetone` re-exports;
//! they are listed here, too, by the names that a user writes.
//!
//! The listing is made from rustdoc's JSON, which is unstable and differs from one Rust to the next: `public-api` is
//! held at the version that reads that of the Rust that CI has.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::LazyLock,
};

use public_api::PublicItem;
use serde_json::Value;
use similar::TextDiff;

use super::{cargo, workspace};

const LISTING: &str = "crates/sidetone/api.txt";
/// With this in the environment, the listing is written instead of compared.
const RENEW: &str = "RENEW_API";

static API: LazyLock<String> = LazyLock::new(listing);

#[test]
fn the_api_is_as_committed() {
    let path = workspace().join(LISTING);
    if env::var_os(RENEW).is_some() {
        fs::write(&path, &*API).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == *API,
        "the public API of `sidetone` is not what {LISTING} says:\n\n{}\n\
         If this is meant, renew the listing with\n\n    \
         {RENEW}=1 cargo test --workspace --test it published::\n\n\
         and say in CHANGELOG.md what it means to users. A line that goes or changes breaks their code.",
        TextDiff::from_lines(committed.as_str(), API.as_str())
            .unified_diff()
            .context_radius(1)
            .header("committed", "now")
    );
}

/// The listing of `sidetone`, a line for each item.
fn listing() -> String {
    let sidetone = Documented::all(&["sidetone".to_owned()]).remove(0);
    let reexports = sidetone.reexports();
    let below: BTreeSet<String> = reexports
        .values()
        .map(|path| path[0].replace('_', "-"))
        .filter(|package| package.starts_with("sidetone-"))
        .collect();
    let below = Documented::all(&below.into_iter().collect::<Vec<_>>());

    // How an item below is called here, by both of its names there: where it is defined, and where it is exported.
    let mut names = BTreeMap::new();
    let mut lines = Vec::new();
    for item in sidetone.api.items() {
        let Some(defined) = reexports.get(&item.id().0) else {
            if !sidetone.is_implied(item) {
                lines.push(item.to_string());
            }
            continue;
        };
        match below.iter().find_map(|package| package.below(defined)) {
            Some((exported, items)) => {
                let here = item.to_string().replace("pub use ", "");
                names.insert(defined.join("::"), here.clone());
                names.insert(exported, here);
                lines.extend(items);
            }
            None => lines.push(format!("{item} = {}", defined.join("::"))),
        }
    }

    // The root's items are listed for the crate and for its root module.
    let mut seen = BTreeSet::new();
    lines
        .iter()
        .map(|line| renamed(line, &names) + "\n")
        .filter(|line| line.starts_with("impl") || seen.insert(line.clone()))
        .collect()
}

/// A crate as rustdoc describes it, and the list of what is public in it.
struct Documented {
    json: Value,
    api: public_api::PublicApi,
}

impl Documented {
    fn all(packages: &[String]) -> Vec<Self> {
        // A directory of its own: with the variable set, many a build script chooses otherwise.
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("api");
        let output = cargo()
            .args(["doc", "--no-deps", "--all-features", "--lib", "--locked"])
            .args(
                packages
                    .iter()
                    .map(|package| format!("--package={package}")),
            )
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTC_BOOTSTRAP", "1")
            .env(
                "RUSTDOCFLAGS",
                "-Zunstable-options --output-format=json --cap-lints=allow",
            )
            .env_remove("CARGO_ENCODED_RUSTDOCFLAGS")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        packages
            .iter()
            .map(|package| {
                let file = target
                    .join("doc")
                    .join(package.replace('-', "_"))
                    .with_extension("json");
                let api = public_api::Builder::from_rustdoc_json(&file)
                    .omit_blanket_impls(true)
                    .build()
                    .unwrap_or_else(|error| {
                        panic!(
                            "{error}\nThe listing is made with the Rust in `.github/workflows/ci.yml`: run this test \
                             with that one, or give sidetone-lab the `public-api` that goes with yours."
                        )
                    });
                let json = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                Self { json, api }
            })
            .collect()
    }

    /// What is exported from other crates: the path where each is defined, by the item that exports it.
    fn reexports(&self) -> BTreeMap<u32, Vec<String>> {
        let uses = self.json["index"].as_object().unwrap().iter();
        uses.filter_map(|(id, item)| {
            let target = &self.json["paths"][item["inner"]["use"]["id"].to_string()];
            let path = target["path"].as_array()?.iter();
            let path = path.map(|part| part.as_str().unwrap().to_owned()).collect();
            (target["crate_id"] != 0).then(|| (id.parse().unwrap(), path))
        })
        .collect()
    }

    /// The item that is defined at this path, by the name under which it is exported, and all lines about it.
    fn below(&self, defined: &[String]) -> Option<(String, Vec<String>)> {
        let paths = self.json["paths"].as_object().unwrap();
        let (id, _) = paths
            .iter()
            .find(|(_, item)| item["crate_id"] == 0 && item["path"] == Value::from(defined))?;
        let id: u32 = id.parse().unwrap();
        let items: Vec<&PublicItem> = self.api.items().collect();
        let root = items.iter().find(|item| item.id().0 == id)?.to_string();
        let exported = paths_of_crate(&root, &defined[0])?;
        let about = |item: &PublicItem| {
            let mut at = Some(item);
            while let Some(item) = at {
                if item.id().0 == id {
                    return true;
                }
                at = item
                    .parent_id()
                    .and_then(|parent| items.iter().find(|other| other.id() == parent).copied());
            }
            false
        };
        let lines = items
            .iter()
            .filter(|item| about(item) && !self.is_implied(item))
            .map(|item| item.to_string());
        Some((exported, lines.collect()))
    }

    /// True of what a trait prescribes anyhow, and of what the compiler finds out for its own use.
    fn is_implied(&self, item: &PublicItem) -> bool {
        let index = &self.json["index"];
        let is_method = !index[item.id().0.to_string()]["inner"]["function"].is_null();
        let of_trait = item
            .parent_id()
            .is_some_and(|parent| !index[parent.0.to_string()]["inner"]["impl"]["trait"].is_null());
        let text = item.to_string();
        (is_method && of_trait)
            || (text.starts_with("impl")
                && ["Freeze", "StructuralPartialEq", "UnsafeUnpin", "UnwindSafe"]
                    .iter()
                    .any(|name| text.contains(&format!("{name} for "))))
    }
}

fn paths_of_crate(line: &str, name: &str) -> Option<String> {
    paths(line)
        .find(|path| path.split("::").next() == Some(name))
        .map(str::to_owned)
}

/// The paths in a line, and whatever else consists of the same characters.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_of_path(c))
        .map(|path| path.trim_matches(':'))
        .filter(|path| !path.is_empty())
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

/// The part of a path that names a type: up to the first capital letter's name.
fn type_in(path: &str) -> Option<&str> {
    let mut end = 0;
    for part in path.split("::") {
        end += part.len();
        if part.starts_with(char::is_uppercase) {
            return Some(&path[..end]);
        }
        end += "::".len();
    }
    None
}

/// The line, with every path that `names` knows by its other name.
fn renamed(line: &str, names: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let path = rest.find(|c| !is_of_path(c)).unwrap_or(rest.len());
        let (path, behind) = rest.split_at(path);
        let known = type_in(path).and_then(|name| names.get(name).map(|new| (name, new)));
        match known {
            Some((name, new)) => {
                out.push_str(new);
                out.push_str(&path[name.len()..]);
            }
            None => out.push_str(path),
        }
        let other = behind.find(is_of_path).unwrap_or(behind.len());
        let (other, behind) = behind.split_at(other);
        out.push_str(other);
        rest = behind;
    }
    out
}
