//! What Linux tells of changes outside: of files. It owns the descriptors that bring it, each from when it is
//! first needed, and knows no reason to ask.

mod files;

use std::{io, path::PathBuf};

use mio::Registry;

use self::files::Files;
use super::Event;

/// What there is to be told of.
#[derive(Default)]
pub(super) struct Changes {
    files: Option<Files>,
}

impl Changes {
    /// Watches these files, and none of those before.
    pub fn watch_files(&mut self, paths: &[PathBuf], registry: &Registry) -> io::Result<()> {
        if paths.is_empty() {
            self.files = None;
            return Ok(());
        }
        let files = match &mut self.files {
            Some(files) => files,
            none => none.insert(Files::new(registry)?),
        };
        files.watch(paths)
    }

    /// What there is to say of the files, when they are told to be ready.
    pub fn files(&mut self) -> Option<Event> {
        let files = self.files.as_mut()?;
        files.changed().then_some(Event::FilesChanged)
    }
}
