//! Which crate may depend on which, as `ARCHITECTURE.md` has it.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, process::Command};

/// Each crate with the ones it may use.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "sidetone-cli",
        &[
            "sidetone",
            "sidetone-gateway",
            "sidetone-bot",
            "sidetone-speech",
            "sidetone-websocket",
            "sidetone-caller",
            "sidetone-load",
            "sidetone-audio",
            "sidetone-proto",
            "sidetone-driver",
        ],
    ),
    (
        "sidetone-gateway",
        &[
            "sidetone",
            "sidetone-bot",
            "sidetone-speech",
            "sidetone-websocket",
            "sidetone-audio",
            "sidetone-proto",
            "sidetone-driver",
        ],
    ),
    (
        "sidetone-lab",
        &[
            "sidetone",
            "sidetone-bot",
            "sidetone-speech",
            "sidetone-websocket",
            "sidetone-services",
            "sidetone-caller",
            "sidetone-load",
            "sidetone-audio",
            "sidetone-proto",
            "sidetone-driver",
        ],
    ),
    (
        "sidetone-bot",
        &[
            "sidetone",
            "sidetone-websocket",
            "sidetone-audio",
            "sidetone-proto",
            "sidetone-driver",
        ],
    ),
    (
        "sidetone-python",
        &["sidetone", "sidetone-caller", "sidetone-audio"],
    ),
    ("sidetone-speech", &["sidetone-audio", "sidetone-websocket"]),
    ("sidetone-websocket", &[]),
    ("sidetone-services", &[]),
    ("sidetone-caller", &["sidetone-audio", "sidetone-proto"]),
    ("sidetone-load", &["sidetone-proto", "sidetone-driver"]),
    (
        "sidetone",
        &["sidetone-audio", "sidetone-proto", "sidetone-driver"],
    ),
    ("sidetone-audio", &[]),
    ("sidetone-proto", &["sidetone-audio"]),
    ("sidetone-driver", &[]),
];

/// Crates that must not be below the ones named: what a library's user should not have to build.
const NOT_BELOW: &[(&str, &[&str])] = &[
    ("sidetone-proto", &["tokio", "rustix", "libc", "socket2"]),
    ("sidetone-audio", &["tokio", "rustix", "socket2"]),
    ("sidetone", &["clap", "serde_json", "symphonia"]),
];

#[test]
fn a_crate_depends_on_those_below_it_only() {
    let mut seen = BTreeMap::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap().to_owned();
        let uses: Vec<String> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            // Tests may use what is above them: the library is tested with the caller.
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .filter(|dependency| dependency.starts_with("sidetone"))
            .collect();
        seen.insert(name, uses);
    }
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    let mut known: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(
        names, known,
        "a crate was added or removed: give it its place in LAYERS and in ARCHITECTURE.md"
    );
    for (name, allowed) in LAYERS {
        for used in &seen[*name] {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} must not use {used}: see ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn the_lower_crates_stay_light() {
    for (name, unwanted) in NOT_BELOW {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--package",
                name,
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            tree.status.success(),
            "{}",
            String::from_utf8_lossy(&tree.stderr)
        );
        let tree = String::from_utf8(tree.stdout).unwrap();
        for line in tree.lines() {
            let below = line.split(' ').next().unwrap();
            assert!(
                !unwanted.contains(&below),
                "{name} must not bring in {below}"
            );
        }
    }
}

fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--offline",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}
