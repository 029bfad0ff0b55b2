//! Which files may have changed, by inotify.
//!
//! A file is replaced in more ways than by writing to it: another one is renamed over it, a link on the way to
//! it is turned elsewhere (Kubernetes, certbot), a folder is made anew, or it is written to by another name
//! (a bind mount of Docker). So the way is walked as the system walks it, and there is a watch for
//!
//! ```text
//!   /etc/siding  -->  /srv/current/siding/  token
//!   ^^^^ names: siding    ^^^^ names: current -> v2       the file itself: writing, attributes
//!                         every folder on the way: moved or removed, it itself
//! ```
//!
//! - each folder in which a link of the way, or the file, is looked up, or the first name that is missing:
//!   what happens there to that name counts, what happens to others is read and left at that;
//! - every folder on the way, to see it go; that says nothing of what happens in it;
//! - the file itself.
//!
//! What is told is only that something may have changed, and the way is walked again then.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{self, Component, Path, PathBuf},
};

use log::debug;
use mio::{Interest, Registry, unix::SourceFd};
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

use crate::reactor::mio_net::FILES;

/// The watches over files.
pub(super) struct Files {
    inotify: OwnedFd,
    watches: HashMap<i32, Watch>,
}

/// What counts of one folder or file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Watch {
    /// What happens in it to these names.
    names: Vec<OsString>,
    /// What is written to it.
    content: bool,
}

/// The watches that are needed, by the places of folders and files, without any link.
type Plan = BTreeMap<PathBuf, Watch>;

impl Files {
    pub fn new(registry: &Registry) -> io::Result<Files> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // Closed, it is registered no more.
        registry.register(
            &mut SourceFd(&inotify.as_raw_fd()),
            FILES,
            Interest::READABLE,
        )?;
        Ok(Files {
            inotify,
            watches: HashMap::new(),
        })
    }

    /// Watches these files, and none of those before.
    ///
    /// # Errors
    /// Some of them cannot be watched; the others are.
    pub fn watch(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        let mut plan = Plan::new();
        // Without a name there is no file, and never will be.
        for path in paths.iter().filter_map(|path| path::absolute(path).ok()) {
            walk(&path, &mut plan);
        }
        // Where there are not enough watches, those that only see folders go are the first to be missed.
        let mut plan: Vec<(PathBuf, Watch)> = plan.into_iter().collect();
        plan.sort_by_key(|(_, watch)| *watch == Watch::default());
        let mut watches: HashMap<i32, Watch> = HashMap::new();
        let mut failed = Ok(());
        for (place, watch) in plan {
            let mut flags = watch.flags();
            // Found by two names, it has one watch: what counts for either counts.
            let add = |flags| inotify::add_watch(&self.inotify, &place, flags);
            let added = match add(flags) {
                Ok(id) if watches.contains_key(&id) => {
                    flags |= watches[&id].flags() | WatchFlags::MASK_ADD;
                    add(flags)
                }
                added => added,
            };
            match added {
                Ok(id) => watches.entry(id).or_default().join(watch),
                // Gone since, which the folder before it tells.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                // To see a folder go is no reason to complain where we may not look into it.
                Err(error) if watch == Watch::default() => {
                    debug!("{}: not watched: {error}", place.display());
                }
                Err(error) => {
                    let error = io::Error::from(error);
                    failed = Err(io::Error::new(
                        error.kind(),
                        format!("{}: {error}", place.display()),
                    ));
                }
            }
        }
        for id in self.watches.keys().filter(|id| !watches.contains_key(id)) {
            // It may have gone with what it has watched.
            let _ = inotify::remove_watch(&self.inotify, *id);
        }
        self.watches = watches;
        failed
    }

    /// Reads what is told; whether any of it counts.
    pub fn changed(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut told = Reader::new(&self.inotify, &mut buffer);
        let mut changed = false;
        for _ in 0..EVENTS_MAX {
            match told.next() {
                Ok(event) => {
                    let name = event.file_name();
                    let name = name.map(|name| OsStr::from_bytes(name.to_bytes()));
                    changed |= match self.watches.get(&event.wd()) {
                        // Some of what happened was left out, of whatever watch.
                        _ if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => true,
                        // It was watched before.
                        None => false,
                        // That is the end of the watch; why it has ended was told before.
                        _ if event.events().contains(ReadFlags::IGNORED) => false,
                        Some(watch) => watch.counts(name),
                    };
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return changed,
                Err(error) => {
                    debug!("inotify: {error}");
                    return true;
                }
            }
        }
        true
    }
}

impl Watch {
    fn flags(&self) -> WatchFlags {
        let mut flags = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        if !self.names.is_empty() {
            // Who is there, not what is written to them: in a folder of logs that is much. Attributes, because
            // a file that may not be read cannot be watched itself.
            flags |=
                WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ATTRIB;
        }
        if self.content {
            flags |= WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        }
        flags
    }

    /// Whether it counts what happened to this name, or to itself.
    fn counts(&self, name: Option<&OsStr>) -> bool {
        name.is_none_or(|name| self.names.iter().any(|own| own == name))
    }

    fn name(&mut self, name: &OsStr) {
        if !self.names.iter().any(|own| own == name) {
            self.names.push(name.to_owned());
        }
    }

    fn join(&mut self, other: Watch) {
        for name in other.names {
            self.name(&name);
        }
        self.content |= other.content;
    }
}

/// Goes the way to a file, as far as it leads, and plans what there is to watch.
fn walk(path: &Path, plan: &mut Plan) {
    let mut ahead: VecDeque<OsString> = parts(path).collect();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            // No link is in it, so that it is the folder above.
            Some(Component::ParentDir) => {
                at.pop();
            }
            Some(Component::Normal(name)) => {
                let here = at.join(name);
                let Ok(kind) = fs::symlink_metadata(&here).map(|of| of.file_type()) else {
                    plan.entry(at).or_default().name(name);
                    return;
                };
                if kind.is_symlink() {
                    plan.entry(at.clone()).or_default().name(name);
                    links += 1;
                    let Ok(target) = fs::read_link(&here) else {
                        return;
                    };
                    if links > LINKS_MAX {
                        return;
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        ahead.push_front(part);
                    }
                } else if kind.is_dir() && !ahead.is_empty() {
                    plan.entry(here.clone()).or_default();
                    at = here;
                } else {
                    plan.entry(at).or_default().name(name);
                    plan.entry(here).or_default().content = true;
                    return;
                }
            }
            _ => {}
        }
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components()
        .map(|component| component.as_os_str().to_owned())
}

/// As many links as Linux follows itself.
const LINKS_MAX: usize = 40;

/// For one event with the longest name, and about a hundred with usual ones.
const BUFFER: usize = 4096;

/// Events taken in a turn: whoever brings more has changed something that counts, for all we know.
const EVENTS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::config::token::tests::Folder;

    /// What is planned below the folder: places, names, and whether writing counts.
    fn planned(folder: &Path, path: &str) -> Vec<(String, Vec<String>, bool)> {
        let mut plan = Plan::new();
        walk(&folder.join(path), &mut plan);
        let below = plan.into_iter().filter_map(|(place, watch)| {
            let place = place.strip_prefix(folder).ok()?.to_str()?.to_owned();
            let names = watch.names.iter();
            let names = names.map(|name| name.to_string_lossy().into_owned());
            Some((place, names.collect(), watch.content))
        });
        below.collect()
    }

    fn planned_is(folder: &Path, path: &str, expected: &[(&str, &[&str], bool)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(place, names, content)| {
                let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
                ((*place).to_owned(), names, *content)
            })
            .collect();
        assert_eq!(planned(folder, path), expected, "{path}");
    }

    #[test]
    fn folders_are_watched_for_names_only_where_those_may_lead_elsewhere() {
        let folder = Folder::new("walk");
        // The folder for temporary files may itself be behind a link.
        let root = &fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        symlink("a/../a", root.join("link")).unwrap();
        symlink("b/file", root.join("a/file")).unwrap();
        symlink("loop", root.join("loop")).unwrap();

        let here: (&str, &[&str], bool) = ("", &[], false);
        planned_is(
            root,
            "a/b/file",
            &[
                here,
                ("a", &[], false),
                ("a/b", &["file"], false),
                ("a/b/file", &[], true),
            ],
        );
        planned_is(
            root,
            "link/./file",
            &[
                ("", &["link"], false),
                ("a", &["file"], false),
                ("a/b", &["file"], false),
                ("a/b/file", &[], true),
            ],
        );
        // What is not there is waited for where it is missing.
        planned_is(root, "a/c/d/file", &[here, ("a", &["c"], false)]);
        planned_is(
            root,
            "a/b/file/x",
            &[
                here,
                ("a", &[], false),
                ("a/b", &["file"], false),
                ("a/b/file", &[], true),
            ],
        );
        planned_is(root, "loop/file", &[("", &["loop"], false)]);
    }
}
