//! The dialplan in the documents is the dialplan that the end-to-end tests run.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

#[test]
fn every_dialplan_block_is_a_tested_recipe() {
    let recipes: Vec<String> = fs::read_dir(here("conf/recipes"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let mut blocks = 0;
    for document in [
        "../../README.md",
        "../../docs/operator.md",
        "../sidetone/README.md",
        "../sidetone-cli/README.md",
    ] {
        let text = fs::read_to_string(here(document)).unwrap();
        for block in text.split("```dialplan\n").skip(1) {
            let block = block.split("```").next().unwrap();
            assert!(
                recipes.iter().any(|recipe| recipe.contains(block)),
                "in no recipe:\n{block}"
            );
            blocks += 1;
        }
    }
    assert!(
        blocks >= recipes.len(),
        "{blocks} blocks for {} recipes: one is not documented",
        recipes.len()
    );
}

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
