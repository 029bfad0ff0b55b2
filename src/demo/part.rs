//! One thread of the demo: an event loop with a role on it.
//!
//! Owns how such a thread begins (it says so once it listens), how it is asked to stop, and that its
//! end is noticed whatever the cause. Does not know what runs on it.
//!
//! Invariant: a [`Part`] that is dropped leaves no thread behind.

use std::{
    io,
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
};

use super::Event;
use crate::reactor::{Reactor, mio_net::MioNet, mio_net::Stopper};

/// A running thread.
pub(super) struct Part {
    name: &'static str,
    stopper: Stopper,
    /// It was asked to stop.
    asked: bool,
    /// `None` once its end was seen.
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Part {
    /// Starts a thread and waits until it says that it has begun, which takes no longer than to open
    /// its listeners. [`Event::Ended`] tells when it is about to end.
    ///
    /// # Errors
    /// There is no thread to be had, or it ended before it began.
    pub fn start<T: Send + 'static>(
        name: &'static str,
        events: &Sender<Event>,
        body: impl FnOnce(Started<T>) -> Result<(), String> + Send + 'static,
    ) -> Result<(Part, T), String> {
        let (started, beginning) = mpsc::channel();
        let notice = Notice(name, events.clone());
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let _notice = notice;
                body(Started(started))
            })
            .map_err(|error| format!("{name}: no thread: {error}"))?;
        match beginning.recv() {
            Ok((stopper, told)) => {
                let thread = Some(thread);
                let part = Part {
                    name,
                    stopper,
                    asked: false,
                    thread,
                };
                Ok((part, told))
            }
            Err(_) => Err(match outcome(name, thread) {
                Err(error) => error,
                Ok(()) => format!("{name}: ended before it began"),
            }),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Asks it to stop, once: what is under way may finish.
    pub fn stop(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            self.stopper.stop();
        }
    }

    /// Makes it end now.
    pub fn stop_at_once(&self) {
        self.stopper.stop();
        self.stopper.stop();
    }

    /// Whether its end was seen.
    pub fn is_over(&self) -> bool {
        self.thread.is_none()
    }

    /// Waits for its end; `Ok` if that was seen before.
    ///
    /// # Errors
    /// It failed.
    pub fn join(&mut self) -> Result<(), String> {
        match self.thread.take() {
            Some(thread) => outcome(self.name, thread),
            None => Ok(()),
        }
    }
}

impl Drop for Part {
    /// Only a part that was left behind by an error elsewhere still runs here.
    fn drop(&mut self) {
        if !self.is_over() {
            self.stop_at_once();
            // The error that led here is the one to tell.
            let _ = self.join();
        }
    }
}

/// By which a thread says that it has begun.
pub(super) struct Started<T>(Sender<(Stopper, T)>);

impl<T> Started<T> {
    /// It has begun; `stopper` ends it, `told` is what its starter wants to know.
    pub fn tell(self, stopper: Stopper, told: T) {
        // The starter waits for exactly this.
        let _ = self.0.send((stopper, told));
    }
}

/// Tells of a thread's end when it is dropped, so that a panic is noticed, too.
struct Notice(&'static str, Sender<Event>);

impl Drop for Notice {
    fn drop(&mut self) {
        // Nobody listens any more when the demo is over.
        let _ = self.1.send(Event::Ended(self.0));
    }
}

fn outcome(name: &str, thread: JoinHandle<Result<(), String>>) -> Result<(), String> {
    match thread.join() {
        Ok(outcome) => outcome.map_err(|error| format!("{name}: {error}")),
        Err(_) => Err(format!("{name}: its thread panicked")),
    }
}

/// An event loop of one's own, and what stops it.
pub(super) fn event_loop<O: Copy>() -> Result<(Reactor<MioNet, O>, Stopper), String> {
    let net = MioNet::new().map_err(loop_failed)?;
    let stopper = net.stopper();
    Ok((Reactor::new(net), stopper))
}

pub(super) fn loop_failed(error: io::Error) -> String {
    format!("event loop: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(started: Started<u8>) -> Result<(), String> {
        let (_reactor, stopper) = event_loop::<()>()?;
        started.tell(stopper, 7);
        Ok(())
    }

    #[test]
    fn a_part_that_ends_is_noticed() {
        let (events, inbox) = mpsc::channel();
        let (mut part, told) = Part::start("idle", &events, idle).expect("a thread");
        assert_eq!(told, 7);
        assert!(matches!(inbox.recv(), Ok(Event::Ended("idle"))));
        assert!(!part.is_over());
        assert_eq!(part.join(), Ok(()));
        assert!(part.is_over());
    }

    #[test]
    fn a_part_that_panics_is_noticed_and_is_an_error() {
        let (events, inbox) = mpsc::channel();
        let body = |started: Started<u8>| {
            idle(started)?;
            panic!("on purpose, to see that it is noticed");
        };
        let (mut part, _) = Part::start("broken", &events, body).expect("a thread");
        assert!(matches!(inbox.recv(), Ok(Event::Ended("broken"))));
        assert_eq!(part.join(), Err("broken: its thread panicked".into()));
    }

    #[test]
    fn a_part_that_cannot_begin_says_why() {
        let (events, _inbox) = mpsc::channel();
        let body = |_: Started<u8>| Err("no port".into());
        let error = Part::start("server", &events, body).map(|_| ());
        assert_eq!(error, Err("server: no port".into()));
    }
}
