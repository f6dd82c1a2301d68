use std::{fs, path::Path};

use serde_json::Value;

use super::cargo;

/// What must be in each package beside its sources.
const FILES: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];
/// More keywords or categories are refused by the registry.
const MOST: usize = 5;

#[test]
fn every_published_crate_has_a_page() {
    for package in published() {
        let name = package["name"].as_str().unwrap();
        for field in ["description", "license", "repository", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        assert_eq!(
            package["documentation"].as_str(),
            Some(format!("https://docs.rs/{name}").as_str()),
            "{name}"
        );
        assert_eq!(package["readme"].as_str(), Some("README.md"), "{name}");
        for field in ["keywords", "categories"] {
            let words = package[field].as_array().unwrap().len();
            assert!((1..=MOST).contains(&words), "{name}: {words} {field}");
        }
        assert_eq!(
            package["metadata"]["docs"]["rs"]["all-features"], true,
            "{name}: docs.rs would leave features out"
        );
        let directory = Path::new(package["manifest_path"].as_str().unwrap()).parent();
        for file in FILES {
            let text = fs::read_to_string(directory.unwrap().join(file));
            assert!(
                text.is_ok_and(|text| text.len() > 500),
                "{name} has no {file}"
            );
        }
        let readme = fs::read_to_string(directory.unwrap().join("README.md")).unwrap();
        assert!(
            readme.starts_with(&format!("# {name}\n")),
            "{name}: its README has another title"
        );
    }
}

/// All crates of the workspace that go to the registry, as `cargo metadata` describes them.
fn published() -> Vec<Value> {
    let output = cargo()
        .args([
            "metadata",
            "--no-deps",
            "--format-version=1",
            "--offline",
            "--locked",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().clone();
    // An empty list of registries is `publish = false`.
    packages.retain(|package| package["publish"].is_null());
    assert!(packages.len() > 1, "{packages:?}");
    packages
}
