//! Two pipes as one stream, with the timeouts that a [`Session`](super::Session) needs: [`Pipes`].
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The two pipes to a program. A pipe knows no timeout, so each read and write waits for its turn.
#[derive(Debug)]
pub struct Pipes<R, W> {
    from: R,
    to: W,
    patience: Timespec,
}

impl<R: AsFd, W: AsFd> Pipes<R, W> {
    /// The pipes from and to a program, which may take that long for each read or write.
    ///
    /// # Errors
    ///
    /// A patience that is longer than the system can count.
    pub fn new(from: R, to: W, patience: Duration) -> io::Result<Self> {
        let patience = Timespec::try_from(patience).map_err(|_| ErrorKind::InvalidInput)?;
        Ok(Self { from, to, patience })
    }
}

/// Waits until the pipe can be used, or is closed at its other end.
fn wait(pipe: &impl AsFd, flags: PollFlags, patience: &Timespec) -> io::Result<()> {
    match poll(&mut [PollFd::new(pipe, flags)], Some(patience))? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

impl<R: Read + AsFd, W> Read for Pipes<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait(&self.from, PollFlags::IN, &self.patience)?;
        self.from.read(buffer)
    }
}

impl<R, W: Write + AsFd> Write for Pipes<R, W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        wait(&self.to, PollFlags::OUT, &self.patience)?;
        self.to.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_that_says_nothing_is_waited_for_no_longer_than_agreed() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut pipes = Pipes::new(from, to, Duration::from_millis(30)).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(pipes.read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        pipes.write_all(b"NOOP\r\n").unwrap();
        pipes.patience = Timespec::try_from(Duration::from_secs(60)).unwrap();
        assert_eq!(pipes.read(&mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"NOOP\r\n");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(pipes.read(&mut buffer).unwrap(), 0);
    }
}
