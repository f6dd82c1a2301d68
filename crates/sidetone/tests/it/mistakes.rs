//! What the compiler says of mistakes in a handler: once each, and with what is expected.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The library as it was built for this test: nothing of its name is newer.
fn libraries() -> Vec<PathBuf> {
    let mut libraries: Vec<_> = fs::read_dir(dependencies())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("libsidetone-") && name.ends_with(".rlib")
        })
        .collect();
    libraries.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    libraries.reverse();
    libraries
}

fn dependencies() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// What the compiler says of a program that serves with `handler`.
fn compile(library: &Path, handler: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("handler.rs");
    let program = format!(
        "#![allow(unused)]\nuse sidetone::*;\npub async fn serve(server: Server) {{\n{handler}\n}}"
    );
    fs::write(&source, program).unwrap();
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .arg("--extern")
        .arg(format!("sidetone={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", dependencies().display()))
        .arg("--out-dir")
        .arg(directory.path())
        .arg(source);
    String::from_utf8(command.output().unwrap().stderr).unwrap()
}

#[test]
fn a_mistake_in_a_handler_is_reported_once_with_what_is_expected() {
    // Libraries that another compiler has left here can't be used.
    let right = "server.serve(async |call: Call| {}).await;";
    let libraries = libraries();
    let usable = libraries
        .iter()
        .find(|path| compile(path, right).is_empty());
    let library = usable.unwrap_or_else(|| panic!("{}", compile(&libraries[0], right)));
    let mistakes = [
        (
            "async fn count(call: Call) -> u32 { 1 } server.serve(count).await;",
            "a handler can't return `u32`",
            "a handler returns nothing, or a `Result<(), E>`",
        ),
        (
            "async fn count(call: Call) -> Result<u32, PlayError> { Ok(1) } server.serve(count).await;",
            "a handler can't return `Result<u32, sidetone::PlayError>`",
            "a handler returns nothing, or a `Result<(), E>`",
        ),
        (
            "server.serve(\"hello\").await;",
            "`&str` can't handle calls",
            "a handler is an async function like `async fn handle(call: Call)`",
        ),
        (
            "let shared = String::new(); server.serve(move |call: Call| async move { drop(shared) }).await;",
            "expected a closure that implements the `Fn` trait",
            "moves the variable `shared` out of its environment",
        ),
    ];
    for (handler, error, note) in mistakes {
        let said = compile(library, handler);
        assert_eq!(said.matches("\nerror[").count() + 1, 1, "{said}");
        assert!(said.starts_with("error[") && said.contains(error), "{said}");
        assert!(said.contains(note), "{said}");
    }
}
