//! A POP3 client that hides nothing: exact reply lines, errors as the server gave them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::PASSWORD;

/// It is longer than any server of a test needs, so that a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// The answer of a server instead of `+OK`, without CR LF; or the error of the connection instead
/// of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// A session that has been greeted.
pub struct Pop3 {
    greeting: String,
    from: BufReader<Box<dyn Read + Send>>,
    to: Box<dyn Write + Send>,
}

impl Pop3 {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Result<Self, Refused> {
        let to = TcpStream::connect(address).map_err(said)?;
        to.set_read_timeout(Some(PATIENCE)).map_err(said)?;
        let from = to.try_clone().map_err(said)?;
        let mut session = Self::over(Box::new(from), Box::new(to));
        session.greeting = session.reply()?;
        Ok(session)
    }

    /// Connects and logs in.
    pub fn login(address: SocketAddr, user: &str) -> Result<Self, Refused> {
        let mut session = Self::connect(address)?;
        session.command(&format!("USER {user}"))?;
        session.command(&format!("PASS {PASSWORD}"))?;
        Ok(session)
    }

    /// Takes over one end of a socket pair that a server's process has at its other end. The
    /// process may run under valgrind, and takes its time then.
    pub fn adopt(to: UnixStream) -> Result<Self, Refused> {
        to.set_read_timeout(Some(20 * PATIENCE)).map_err(said)?;
        let from = to.try_clone().map_err(said)?;
        Ok(Self::over(Box::new(from), Box::new(to)))
    }

    fn over(from: Box<dyn Read + Send>, to: Box<dyn Write + Send>) -> Self {
        Self { greeting: String::new(), from: BufReader::new(from), to }
    }

    /// Reads the greeting of a session that was taken over, from a server that gives one.
    pub fn be_greeted(&mut self) -> Result<(), Refused> {
        self.greeting = self.reply()?;
        Ok(())
    }

    /// The greeting of the server, after `+OK`; empty if it does not greet.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Sends a command. Returns the text after `+OK`.
    pub fn command(&mut self, command: &str) -> Result<String, Refused> {
        self.ask(command)?;
        self.reply()
    }

    /// Sends a command with a multi-line response. Returns its lines, dot-stuffing undone.
    pub fn lines(&mut self, command: &str) -> Result<Vec<Vec<u8>>, Refused> {
        self.command(command)?;
        let mut lines = Vec::new();
        loop {
            let mut line = self.line()?;
            if line == b"." {
                return Ok(lines);
            }
            if line.first() == Some(&b'.') {
                line.remove(0);
            }
            lines.push(line);
        }
    }

    /// The unique-id listing, in the server's order. Panics unless the message-numbers are 1, 2,
    /// ...
    pub fn uidl(&mut self) -> Result<Vec<String>, Refused> {
        self.numbered("UIDL")
    }

    /// The sizes in octets, in the server's order.
    pub fn list(&mut self) -> Result<Vec<u64>, Refused> {
        let sizes = self.numbered("LIST")?;
        Ok(sizes.iter().map(|size| size.parse().expect("a size")).collect())
    }

    /// A message, as it was on the wire except for dot-stuffing.
    pub fn retr(&mut self, number: usize) -> Result<Vec<u8>, Refused> {
        let mut message = Vec::new();
        for line in self.lines(&format!("RETR {number}"))? {
            message.extend(line);
            message.extend(b"\r\n");
        }
        Ok(message)
    }

    /// Marks a message as deleted.
    pub fn dele(&mut self, number: usize) -> Result<(), Refused> {
        self.command(&format!("DELE {number}")).map(drop)
    }

    /// Ends the session; the marked messages are deleted now.
    pub fn quit(mut self) -> Result<(), Refused> {
        self.command("QUIT")?;
        // The server's process has let go of the maildrop when the connection is closed.
        match self.line() {
            Err(_) => Ok(()),
            Ok(line) => Err(Refused(format!("after QUIT: {}", String::from_utf8_lossy(&line)))),
        }
    }

    /// Sends a command and waits for no answer.
    pub fn ask(&mut self, command: &str) -> Result<(), Refused> {
        self.to.write_all(format!("{command}\r\n").as_bytes()).map_err(said)
    }

    /// Asks nothing, and takes what the server says until it closes the connection.
    pub fn hear_out(mut self) -> Result<Vec<u8>, Refused> {
        let mut heard = Vec::new();
        self.from.read_to_end(&mut heard).map_err(said)?;
        Ok(heard)
    }

    fn numbered(&mut self, command: &str) -> Result<Vec<String>, Refused> {
        let lines = self.lines(command)?;
        let numbered = lines.iter().enumerate().map(|(at, line)| {
            let line = std::str::from_utf8(line).expect("ASCII");
            let (number, rest) = line.split_once(' ').expect("a number and a value");
            assert_eq!(number, (at + 1).to_string(), "{command}: {line}");
            rest.to_owned()
        });
        Ok(numbered.collect())
    }

    fn reply(&mut self) -> Result<String, Refused> {
        let line = String::from_utf8_lossy(&self.line()?).into_owned();
        match line.strip_prefix("+OK") {
            Some(text) => Ok(text.trim_start().to_owned()),
            None => Err(Refused(line)),
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, Refused> {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line).map_err(said)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(Refused(format!(
                "connection closed after {:?}",
                String::from_utf8_lossy(&line)
            ))),
        }
    }
}

fn said(error: std::io::Error) -> Refused {
    Refused(error.to_string())
}
