//! The files that a configuration is made of: what they held when they were read, and whether they do still.
//!
//! Owns the reading of them: whatever is configured by a file is read by [`read`], so that whoever wants to
//! know which ones there were has only to ask for a [record](Files::of). It does not know what stands in
//! them, and watches nothing.
//!
//! The record is a list of the thread, against the rule that nothing is: the readers are constructors of
//! values (a token, a certificate, users), each some calls below the one that asks, and a list in all those
//! signatures would be there for the reload alone. It exists only while [`Files::of`] runs.
//!
//! Before the event loop runs, a pipe may be waited for. From then on nothing may: whoever can put a pipe
//! where a file was would have everybody wait for somebody to write. A pipe that was read at the start is
//! read again where the operator asks for it.

use std::{
    cell::RefCell,
    fs::{self, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// What is being read.
#[derive(Default)]
struct Record {
    seen: Vec<Seen>,
    /// Which pipes may be waited for, where not all may.
    pipes: Option<Vec<PathBuf>>,
}

/// Files, and what they held.
#[derive(Debug, Default)]
pub struct Files(Vec<Seen>);

/// A file as it was once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    /// How much of it is of interest.
    bytes_max: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It could not be read.
    Unread,
    /// The hash of what it held.
    Held([u8; 32]),
    /// A pipe or a device: what was read of it is gone, or comes as often as it is asked for.
    Passing,
}

/// From where a configuration was read, and can be read again.
pub struct Source<C> {
    read: Box<Read<C>>,
    files: Files,
}

/// Reads a configuration; the error is what to tell the operator.
type Read<C> = dyn FnMut() -> Result<C, String>;

impl<C> Source<C> {
    /// A configuration that was read from these files.
    pub fn new(files: Files, read: impl FnMut() -> Result<C, String> + 'static) -> Source<C> {
        Source {
            read: Box::new(read),
            files,
        }
    }

    /// Reads it again. Where it is wrong, the files of the last one are still of interest, too.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(&mut self) -> Result<C, String> {
        let pipes = self.files.pipes();
        let (outcome, files) = Files::record(Some(pipes), &mut self.read);
        let before = std::mem::replace(&mut self.files, files);
        if outcome.is_err() {
            self.files.add(before);
        }
        outcome
    }

    /// What it was read from the last time.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// The first `bytes_max` bytes of a file that is part of a configuration.
///
/// # Errors
/// It cannot be read, or would have to be waited for while the event loop runs.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let may_wait = RECORD.with_borrow(|record| {
        let pipes = record.as_ref().and_then(|record| record.pipes.as_ref());
        pipes.is_none_or(|pipes| pipes.iter().any(|pipe| pipe == path))
    });
    let outcome = open(path, bytes_max, may_wait);
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.seen.push(Seen {
                path: path.to_owned(),
                bytes_max,
                state: State::of(&outcome),
            });
        }
    });
    outcome.map(|(bytes, _)| bytes)
}

/// What a file holds, and whether it is one that holds it for good.
fn open(path: &Path, bytes_max: u64, may_wait: bool) -> io::Result<(Vec<u8>, bool)> {
    let is_waited_for = |of: &Metadata| !may_wait && !of.is_file() && !of.is_dir();
    let refused = || {
        let why = "it is a pipe or the like by now, and nobody waits for one but at the start";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    };
    // To open a pipe wakes whoever writes to it, and a device may do anything.
    if is_waited_for(&fs::metadata(path)?) {
        return Err(refused());
    }
    let flags = if may_wait { 0 } else { libc::O_NONBLOCK };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let metadata = file.metadata()?;
    if is_waited_for(&metadata) {
        return Err(refused());
    }
    let is_lasting = metadata.is_file();
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok((bytes, is_lasting))
}

impl State {
    fn of(outcome: &io::Result<(Vec<u8>, bool)>) -> State {
        match outcome {
            Ok((bytes, true)) => State::Held(Sha256::digest(bytes).into()),
            Ok((_, false)) => State::Passing,
            Err(_) => State::Unread,
        }
    }
}

impl Files {
    /// Does some work, and tells which files were [read](read) for it.
    pub fn of<T>(work: impl FnOnce() -> T) -> (T, Files) {
        Files::record(None, work)
    }

    /// As [`Files::of`], where only these pipes may be waited for.
    fn record<T>(pipes: Option<Vec<PathBuf>>, work: impl FnOnce() -> T) -> (T, Files) {
        let seen = Vec::new();
        let before = RECORD.replace(Some(Record { seen, pipes }));
        let done = work();
        let record = RECORD.replace(before);
        (done, Files(record.unwrap_or_default().seen))
    }

    /// Those that cannot be read twice.
    fn pipes(&self) -> Vec<PathBuf> {
        let pipes = self.0.iter().filter(|seen| seen.state == State::Passing);
        pipes.map(|seen| seen.path.clone()).collect()
    }

    /// Adds those of `others` that are not among these, as they are now: what has changed of them since was
    /// of no use, and is no reason to try again.
    pub fn add(&mut self, others: Files) {
        for mut other in others.0 {
            if !self.0.iter().any(|seen| seen.path == other.path) {
                other.state = other.state_now();
                self.0.push(other);
            }
        }
    }

    /// What there is to watch: nothing, where one of them cannot be read twice, for then none is.
    pub fn paths(&self) -> Vec<PathBuf> {
        if self.0.iter().any(|seen| seen.state == State::Passing) {
            return Vec::new();
        }
        self.0.iter().map(|seen| seen.path.clone()).collect()
    }

    /// The first file that holds something else by now, or can be read, or not any more, unlike before.
    pub fn changed(&self) -> Option<&Path> {
        let differs = |seen: &&Seen| seen.state_now() != seen.state;
        self.0.iter().find(differs).map(|seen| &*seen.path)
    }
}

impl Seen {
    fn state_now(&self) -> State {
        match self.state {
            State::Passing => State::Passing,
            State::Unread | State::Held(_) => State::of(&open(&self.path, self.bytes_max, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::token::tests::Folder;

    #[test]
    fn what_was_read_is_known_and_whether_it_has_changed() {
        let folder = Folder::new("files");
        let (kept, changed) = (folder.file("kept", "a"), folder.file("changed", "b"));
        let absent = folder.path().join("absent");
        let ((), files) = Files::of(|| {
            for path in [&kept, &changed, &absent] {
                let _ = read(path, 10);
            }
        });
        assert_eq!(
            files.paths(),
            [kept.clone(), changed.clone(), absent.clone()]
        );
        assert_eq!(files.changed(), None);
        // Another file of the same content is no change.
        fs::remove_file(&kept).unwrap();
        assert_eq!(files.changed(), Some(&*kept));
        folder.file("kept", "a");
        assert_eq!(files.changed(), None);
        folder.file("changed", "c");
        assert_eq!(files.changed(), Some(&*changed));
        folder.file("changed", "b");
        folder.file("absent", "");
        assert_eq!(files.changed(), Some(&*absent));
    }

    #[test]
    fn a_record_is_of_its_own_work_alone_and_others_are_added_once() {
        let folder = Folder::new("files-nested");
        let [a, b] = ["a", "b"].map(|name| folder.file(name, name));
        let _ = read(&a, 10);
        let (inner, mut outer) = Files::of(|| {
            let ((), inner) = Files::of(|| drop(read(&a, 10)));
            let _ = read(&b, 10);
            inner
        });
        assert_eq!(outer.paths(), std::slice::from_ref(&b));
        outer.add(inner);
        assert_eq!(outer.paths(), [b.clone(), a.clone()]);
        let ((), again) = Files::of(|| drop(read(&a, 10)));
        outer.add(again);
        assert_eq!(outer.paths(), [b, a]);
    }

    #[test]
    fn what_changes_while_the_configuration_is_wrong_is_read_once() {
        let folder = Folder::new("files-wrong");
        let [main, token] = ["main", "token"].map(|name| folder.file(name, "right"));
        let reads = move || {
            match read(&main, 10) {
                Ok(json) if json == b"right" => {}
                _ => return Err("wrong".to_owned()),
            }
            read(&token, 10)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        let (read, files) = Files::of(&reads);
        assert_eq!(read, Ok(()));
        let mut source = Source::new(files, reads);
        folder.file("main", "left");
        folder.file("token", "another");
        assert!(source.files().changed().is_some());
        assert_eq!(source.read(), Err("wrong".into()));
        assert_eq!(source.files().changed(), None, "it has been looked at");
        folder.file("token", "a third");
        let token = folder.path().join("token");
        assert_eq!(source.files().changed(), Some(&*token));
        assert_eq!(source.read(), Err("wrong".into()));
        assert_eq!(source.files().changed(), None);
    }

    #[test]
    fn where_a_pipe_was_read_nothing_is_watched() {
        let folder = Folder::new("files-pipe");
        let file = folder.file("file", "x");
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo belongs to every system").success());
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, "a secret").unwrap()
        });
        let (bytes, files) = Files::of(|| {
            read(&file, 10).unwrap();
            read(&pipe, 10).unwrap()
        });
        writer.join().unwrap();
        assert_eq!(bytes, b"a secret");
        assert!(files.paths().is_empty());
        assert_eq!(files.changed(), None);
    }
}
