//! What both roles do about a new configuration: when to look for one, and what to say of it. It knows neither.
//!
//! ```text
//!   a file may have changed --> quiet for QUIET --> watched anew --> another content? --> read again
//! ```
//!
//! The watch is always there before anything is read or compared, so that no change falls between the two.

use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::{
    clock::Now,
    config::{AdminConfig, Source},
    key::Key,
    reactor::{Deadline, Reactor, net::Net},
};

/// A configuration that can be read again, and the watch over the files that it comes from.
pub(crate) struct Watched<C> {
    source: Source<C>,
    /// Since when files change, and the timer that waits for the end of that.
    stirred: Option<(Instant, Key)>,
    /// Why not all files are watched, as it was said last.
    said: Option<String>,
}

impl<C> Watched<C> {
    /// Watches the files of a configuration that was read. What has changed since then is seen, too: `owner`
    /// is called at the end of its timer.
    pub fn new<N: Net, O: Copy>(source: Source<C>, owner: O, io: &mut Reactor<N, O>) -> Watched<C> {
        let mut watched = Watched {
            source,
            stirred: None,
            said: None,
        };
        watched.watch(owner, io);
        watched
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(&mut self) -> Result<C, String> {
        self.source.read()
    }

    /// What was read runs now, or the reason why it does not. Whatever files it was that were read are
    /// watched.
    pub fn ended<N: Net, O: Copy>(
        &mut self,
        outcome: Result<(), String>,
        owner: O,
        io: &mut Reactor<N, O>,
    ) {
        if let Err(reason) = outcome {
            error!("reload: nothing changed: {reason}");
        }
        self.watch(owner, io);
    }

    /// Watches the files that were read last, instead of those before.
    fn watch<N: Net, O: Copy>(&mut self, owner: O, io: &mut Reactor<N, O>) {
        self.watch_paths(io);
        if self.source.files().changed().is_some() {
            self.stir(owner, io);
        }
    }

    /// One of the files may have changed.
    pub fn stir<N: Net, O: Copy>(&mut self, owner: O, io: &mut Reactor<N, O>) {
        let now = io.now().instant;
        match self.stirred {
            None => {
                let timer = io.timer(owner, Deadline::At(now + QUIET));
                self.stirred = Some((now, timer));
            }
            Some((since, timer)) => {
                io.set_deadline(timer, Deadline::At((now + QUIET).min(since + STIRRED_MAX)));
            }
        }
    }

    /// The timer of [`Watched::stir`] has fired. Whether the configuration is to be read again.
    pub fn settled<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>) -> bool {
        if let Some((_, timer)) = self.stirred.take() {
            io.close(timer);
        }
        // What leads to the files may be another by now.
        self.watch_paths(io);
        let Some(path) = self.source.files().changed() else {
            debug!("reload: no file has changed");
            return false;
        };
        info!("reload: {} has changed", path.display());
        true
    }

    fn watch_paths<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>) {
        let failed = io.watch_files(&self.source.files().paths()).err();
        let said = failed.map(|error| error.to_string());
        if said != self.said
            && let Some(error) = &said
        {
            warn!("not all files are watched, SIGHUP has them read: {error}");
        }
        self.said = said;
    }
}

/// A role that takes a new configuration over while it runs.
pub(crate) trait Reload<N: Net, O: Copy> {
    /// What it is configured by.
    type Config;

    /// Its label of the timer of its files.
    const FILES: O;

    /// The watch over them; `None` where there is none, and once the role comes to its end.
    fn watched(&mut self) -> Option<&mut Watched<Self::Config>>;

    /// Takes a new configuration over.
    ///
    /// # Errors
    /// It cannot be had, and nothing has changed.
    fn take_over(
        &mut self,
        io: &mut Reactor<N, O>,
        config: Self::Config,
        now: Now,
    ) -> Result<(), String>;

    /// Reads everything again, and takes it over.
    fn read_again(&mut self, io: &mut Reactor<N, O>, now: Now) {
        let Some(watched) = self.watched() else {
            return;
        };
        let read = watched.read();
        let outcome = read.and_then(|config| self.take_over(io, config, now));
        if let Some(watched) = self.watched() {
            watched.ended(outcome, Self::FILES, io);
        }
    }

    /// One of the files may have changed: they are looked at when nothing more happens to them.
    fn files_stirred(&mut self, io: &mut Reactor<N, O>) {
        if let Some(watched) = self.watched() {
            watched.stir(Self::FILES, io);
        }
    }

    /// Nothing more happens to them.
    fn files_settled(&mut self, io: &mut Reactor<N, O>, now: Now) {
        if let Some(watched) = self.watched()
            && watched.settled(io)
        {
            self.read_again(io, now);
        }
    }
}

/// Warns of what has changed and is kept as it was; each field comes with whether it is the same.
pub(crate) fn warn_of_kept(fields: &[(&str, bool)]) {
    let changed = fields.iter().filter(|(_, same)| !same);
    let changed: Vec<&str> = changed.map(|(field, _)| *field).collect();
    if !changed.is_empty() {
        warn!(
            "reload: {} stay as they were until a restart",
            changed.join(", ")
        );
    }
}

/// Whether an admin is met where it was.
pub(crate) fn is_same_listener(old: &Option<AdminConfig>, new: &Option<AdminConfig>) -> bool {
    let [old, new] = [old, new].map(|admin| admin.as_ref().map(|admin| admin.listen));
    old == new
}

/// How long nothing must have happened to the files. Whoever writes one in place, or several one after the
/// other, does so within a few milliseconds; and nobody waits for a reload by the tenth of a second.
const QUIET: Duration = Duration::from_millis(250);

/// How long to wait for that. Who still writes then writes without end.
const STIRRED_MAX: Duration = Duration::from_secs(2);
