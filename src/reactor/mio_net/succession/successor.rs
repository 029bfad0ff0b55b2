//! The process that takes over: it is started with our listeners, and we are told when it has them.
//!
//! It runs the program and the arguments that this process was started with, so whatever has been installed
//! in that place by now. It inherits as [`inherited`](super::inherited) says, and besides the listeners a
//! socket on which it says that it is at work; if that closes before, it has failed and nothing has changed.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command},
};

use command_fds::{CommandFdExt, FdMapping};
use mio::net::TcpListener;
use rustix::fs::{MemfdFlags, memfd_create};

use super::inherited::{FIRST, NOTES, PREDECESSOR, READY};

/// A process that was started to take over, until it has or has failed.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    /// It says here that it is at work.
    channel: mio::net::UnixStream,
}

impl Successor {
    /// Starts it with these listeners, and `notes` of what it must know.
    ///
    /// # Errors
    /// The system's own.
    pub fn start(listeners: &[&TcpListener], notes: &[u8]) -> io::Result<Successor> {
        let mut arguments = env::args_os();
        let program = arguments
            .next()
            .ok_or_else(|| io::Error::other("this process does not know its program"))?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut descriptors = vec![OwnedFd::from(theirs), OwnedFd::from(written(notes)?)];
        for listener in listeners {
            descriptors.push(listener.as_fd().try_clone_to_owned()?);
        }
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("LISTEN_FDS", descriptors.len().to_string())
            .env("LISTEN_FDNAMES", names(listeners.len()))
            // Where they begin is as usual, wherever ours did.
            .env_remove("LISTEN_FDS_FIRST_FD")
            // Nobody knows its id before it is there; what it inherits is meant for whom it is started as.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_PIDFDID")
            .env_remove("WATCHDOG_PID");
        let mapped = descriptors.into_iter().zip(FIRST as i32..);
        let mapped = mapped.map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .fd_mappings(mapped.collect())
            .expect("each has a number of its own");
        Ok(Successor {
            child: command.spawn()?,
            channel: mio::net::UnixStream::from_std(ours),
        })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it will say that it is at work.
    pub fn channel(&mut self) -> &mut mio::net::UnixStream {
        &mut self.channel
    }

    /// What it has said: `None` as long as that is nothing.
    ///
    /// # Errors
    /// It has failed; the text says how.
    pub fn heard(&mut self) -> Option<Result<(), String>> {
        let mut said = [0; READY.len()];
        match self.channel.read(&mut said) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(n) if said[..n] == *READY => Some(Ok(())),
            _ => {
                // It ends in this moment, or never will; why, it has said itself.
                self.end();
                Some(Err("the new process has ended before it was at work".into()))
            }
        }
    }

    /// Ends it, if it has not ended by itself.
    pub fn end(&mut self) {
        // Errors say that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of what is handed over with so many listeners. Those have none: they are known by their
/// addresses, and the system takes no variable of more than 128 KiB (execve(2)), which is eight thousand of
/// them.
fn names(listeners: usize) -> String {
    format!("{PREDECESSOR}:{NOTES}{}", ":".repeat(listeners))
}

/// A file in memory that holds `bytes`.
pub(super) fn written(bytes: &[u8]) -> io::Result<File> {
    let closes = MemfdFlags::CLOEXEC;
    // Nobody is to run it, and there are systems that insist (vm.memfd_noexec); those before Linux 6.3 do not
    // know what that means.
    let made = memfd_create(NOTES, closes | MemfdFlags::NOEXEC_SEAL);
    let mut file = File::from(made.or_else(|_| memfd_create(NOTES, closes))?);
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_listeners_have_names_that_the_system_takes() {
        let names = names(100_000);
        assert_eq!(names.split(':').count(), 100_002);
        let status = Command::new("true").env("LISTEN_FDNAMES", names).status();
        assert!(status.expect("it starts").success());
    }
}
