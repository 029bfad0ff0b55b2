//! Every input that fuzzing has shown to be worth keeping, through its property again: on any
//! toolchain, without a fuzzer. The properties are those of the fuzz targets (`tests/fuzz`), and an
//! input that once broke one stays in the corpus.

use std::{fs, panic, path::PathBuf};

#[path = "fuzz/properties/mod.rs"]
mod properties;

#[test]
fn body() {
    replay("body");
}

#[test]
fn control() {
    replay("control");
}

#[test]
fn frame() {
    replay("frame");
}

#[test]
fn gather() {
    replay("gather");
}

#[test]
fn request() {
    replay("request");
}

#[test]
fn requests() {
    replay("requests");
}

#[test]
fn response() {
    replay("response");
}

#[test]
fn responses() {
    replay("responses");
}

/// A target that has a property and no corpus, a corpus that nothing replays, and a property without
/// a target are all forgotten work.
#[test]
fn each_property_has_a_target_and_a_corpus() {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(fuzz().join(directory)).expect("it is in the repository");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").path())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into())
            .collect();
        names.sort();
        names
    };
    let mut properties: Vec<&str> = properties::ALL.iter().map(|(name, _)| *name).collect();
    properties.sort_unstable();
    assert_eq!(names("targets"), properties);
    assert_eq!(names("corpus"), properties);
}

fn replay(target: &str) {
    let (_, property) = properties::ALL
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a property of that name");
    let directory = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&directory).expect("a corpus");
    let mut inputs: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    for path in &inputs {
        let input = fs::read(path).expect("an input");
        if let Err(panic) = panic::catch_unwind(|| property(&input)) {
            eprintln!("with {}", path.display());
            panic::resume_unwind(panic);
        }
    }
    println!("{target}: {} inputs", inputs.len());
}

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}
