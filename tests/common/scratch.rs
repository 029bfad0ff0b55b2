//! A directory of one test, gone when the test is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A fresh directory under the system's temporary one.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory.
    pub fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("siding-test-{}-{number}", process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        Self(directory)
    }

    /// The path of an entry, which need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Writes an entry and says where it is. What was there before is there until all of the new is: who
    /// watches it sees nothing between.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let beside = self.path(&format!("{name}.beside"));
        fs::write(&beside, content).expect("the scratch directory is writable");
        fs::rename(beside, &path).expect("they are in one directory");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is in the way of nobody: its name holds our process id.
        fs::remove_dir_all(&self.0).ok();
    }
}
