//! Builds the wheel of the Python module, and makes virtual environments with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, target};
use super::python::{Interpreter, MATURIN, Requirements};
use super::{FetchError, at};
use crate::asterisk::StartError;
use crate::binary::as_from_outside;

/// How the files of the wheel begin.
const WHEEL: &str = "sidetone_audiosocket-";

/// A virtual environment with the wheel and further packages, or finds it in the cache: it is made anew when the wheel or
/// they have changed. Answers its Python.
///
/// Blocks, caches and locks like [`asterisk`](super::asterisk). Cargo decides whether something has to be built: the first time
/// takes a minute.
pub(crate) fn environment(
    python: &Interpreter,
    packages: &[&Requirements],
) -> Result<PathBuf, StartError> {
    let fetched = packages.iter().map(|packages| packages.fetch(python));
    let folders = fetched.collect::<Result<Vec<_>, _>>()?;
    let maturin = MATURIN.fetch(&Interpreter::of_this_machine()?)?;
    let cache = Cache::open()?;
    let wheel = build(&maturin)?;
    let content = std::fs::read(&wheel)?;
    let name = packages.iter().map(|packages| packages.name());
    let name = ["wheel"].into_iter().chain(name).collect::<Vec<_>>();
    let name = format!("{}-python-{}", name.join("-"), python.version());
    let entry = cache.entry(&name, (content, &folders), |target| {
        install(python, &wheel, &folders, target)
    })?;
    Ok(entry.join("bin/python"))
}

/// The wheel in `target/wheels`, built with the profile and in the folder of the workspace. What maturin builds has features of
/// its own, so it leaves alone what the workspace has built, and is left alone.
fn build(maturin: &Path) -> Result<PathBuf, StartError> {
    let folder = target().join("wheels");
    for old in wheels(&folder) {
        std::fs::remove_file(&old).map_err(at(old))?;
    }
    let mut building = Command::new(maturin.join("bin/maturin"));
    as_from_outside(&mut building);
    building
        .args(["build", "--locked", "--profile", "dev"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../sidetone-python/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(target())
        .arg("--out")
        .arg(&folder)
        // The same sources make the same wheel: 1980 is where a ZIP's time begins.
        .env("SOURCE_DATE_EPOCH", "315532800");
    let output = building.output()?;
    let built = wheels(&folder).next();
    built.filter(|_| output.status.success()).ok_or_else(|| {
        let said = [output.stdout, output.stderr].concat();
        StartError::Program {
            program: "maturin build",
            printed: String::from_utf8_lossy(&said).into_owned(),
        }
    })
}

fn wheels(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(WHEEL) && name.ends_with(".whl")
    })
}

fn install(
    python: &Interpreter,
    wheel: &Path,
    folders: &[PathBuf],
    target: &Path,
) -> Result<(), FetchError> {
    let folder = target.display().to_string();
    // Without a pip of its own: Debian has that in a package apart. The machine's pip installs into it.
    python.run(&["-m", "venv", "--without-pip", &folder])?;
    let inside = target.join("bin/python").display().to_string();
    let wheel = wheel.display().to_string();
    let into = ["-m", "pip", "--python", &inside, "install", "--quiet"];
    python.run(&[&into[..], &["--no-index", "--no-deps", &wheel]].concat())?;
    // Large packages stay where they are, for every environment that has them.
    let packages = target
        .join("lib")
        .join(format!("python{}", python.version()))
        .join("site-packages/lab.pth");
    let lines = folders
        .iter()
        .map(|folder| format!("{}\n", folder.display()));
    std::fs::write(&packages, lines.collect::<String>()).map_err(at(packages))
}
