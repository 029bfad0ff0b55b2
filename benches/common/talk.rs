//! A session as people have one: a line is sent and comes back, over ssh or, where OpenSSH is not
//! installed, through a raw echo.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr},
    process::{Child, Stdio},
};

use crate::common::{Sshd, connect_from};

/// Both directions of a session.
pub struct Talk {
    to: Box<dyn Write + Send>,
    from: BufReader<Box<dyn Read + Send>>,
    back: String,
}

impl Talk {
    /// A session at a proxy that leads to `sshd`, or to an echo; the child is ssh's. The user has an
    /// address of its own.
    pub fn open(
        sshd: Option<&Sshd>,
        from: IpAddr,
        proxy: SocketAddr,
        options: &[&str],
    ) -> (Option<Child>, Talk) {
        let Some(sshd) = sshd else {
            let stream = connect_from(from, proxy);
            let to = stream.try_clone().expect("there are descriptors");
            return (None, Talk::over(to, stream));
        };
        let from = from.to_string();
        let options = [&["-b", &*from], options].concat();
        let mut command = sshd.ssh(proxy, &options, &["cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // ssh has its files not block, and ours may be the same one.
        command.stderr(Stdio::null());
        let mut child = command.spawn().expect("ssh is installed");
        let to = child.stdin.take().expect("it is piped");
        let from = child.stdout.take().expect("it is piped");
        (Some(child), Talk::over(to, from))
    }

    fn over(to: impl Write + Send + 'static, from: impl Read + Send + 'static) -> Talk {
        Talk {
            to: Box::new(to),
            from: BufReader::new(Box::new(from)),
            back: String::new(),
        }
    }

    /// Sends a line, and waits for it to come back.
    ///
    /// # Errors
    /// The session's; `UnexpectedEof` where it ends, `InvalidData` where something else comes back.
    pub fn echoes(&mut self, line: &str) -> io::Result<()> {
        self.to.write_all(line.as_bytes())?;
        self.to.flush()?;
        self.back.clear();
        self.from.read_line(&mut self.back)?;
        if !self.back.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.back == line {
            true => Ok(()),
            false => {
                let message = format!("{line:?} came back as {:?}", self.back);
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    }
}
