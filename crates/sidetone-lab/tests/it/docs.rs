//! The dialplan in the documents is the dialplan that the end-to-end tests run, and the gateway's file is described whole.
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
        "../../docs/gateway.md",
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

#[test]
fn each_key_of_the_gateways_file_is_documented() {
    let guide = fs::read_to_string(here("../../docs/gateway.md")).unwrap();
    let page = fs::read_to_string(here("../../contrib/man/sidetone.toml.5")).unwrap();
    let page_words: Vec<&str> = page.split([' ', '\n', '"', ',']).collect();
    let mut keys = 0;
    for source in ["file.rs", "transcriber.rs", "bot.rs", "openai.rs"] {
        let path = format!("../sidetone-gateway/src/config/{source}");
        for key in keys_of_tables(&fs::read_to_string(here(&path)).unwrap()) {
            let is_in_guide = [
                format!("`{key}`"),
                format!("{key} = "),
                format!(".{key}]]`"),
            ]
            .iter()
            .any(|it| guide.contains(it));
            assert!(is_in_guide, "{key} is not in docs/gateway.md");
            let is_in_page =
                page_words.contains(&key.as_str()) || page.contains(&format!(".{key}]]"));
            assert!(is_in_page, "{key} is not in contrib/man/sidetone.toml.5");
            keys += 1;
        }
    }
    assert!(keys > 40, "{keys}");
}

/// The fields of each `struct …Table`, by the names that they have in the file.
fn keys_of_tables(source: &str) -> Vec<String> {
    let (mut keys, mut is_table, mut renamed) = (Vec::new(), false, None);
    for line in source.lines() {
        if line.starts_with("struct ") || line.starts_with("pub(super) struct ") {
            is_table = line.contains("Table");
        } else if line.starts_with('}') {
            is_table = false;
        } else if let Some((_, rest)) = line.split_once("rename = \"") {
            renamed = rest.split('"').next().map(str::to_owned);
        } else if is_table && let Some((field, _)) = line.trim().split_once(": ") {
            let field = field.trim_start_matches("pub(super) ");
            keys.push(renamed.take().unwrap_or_else(|| field.to_owned()));
        }
    }
    keys
}

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
