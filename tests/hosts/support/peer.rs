//! A POP3 server that says what a test has it say: it stands for servers that cannot be installed,
//! and does what no server does on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The answer of a server when it has heard a command.
pub enum Answer {
    /// Says these octets.
    Say(Vec<u8>),
    /// Says them, and forgets what it was sent meanwhile.
    SayAndForget(Vec<u8>),
    /// Says them, and closes the connection.
    SayAndClose(Vec<u8>),
    /// Says the first, and then the second again and again until the client has gone.
    Repeat(Vec<u8>, Vec<u8>),
    /// Says nothing until the client has gone.
    Stall,
}

impl From<&str> for Answer {
    fn from(said: &str) -> Self {
        Self::Say(said.as_bytes().to_vec())
    }
}

/// A running server. Sessions come one after another. It is stopped on drop.
pub struct Peer {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<String>>>>,
    deepest: Arc<Mutex<usize>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Starts one. `answer` is told the session, from 0, and the command; the first of each session
    /// is the connection itself, "".
    pub fn start(mut answer: impl FnMut(usize, &str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (heard, deepest) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, depth, ends) = (Arc::clone(&heard), Arc::clone(&deepest), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let session = {
                    let mut log = log.lock().expect("no panic");
                    log.push(Vec::new());
                    log.len() - 1
                };
                let hear =
                    |command: &str| log.lock().expect("no panic")[session].push(command.into());
                // A client that hangs up is no fault of the server's.
                let _ = talk(stream.expect("a client"), &depth, hear, |command| {
                    answer(session, command)
                });
            }
        });
        Self { address, heard, deepest, stop, thread: Some(thread) }
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The commands that it heard, a list for each session.
    pub fn heard(&self) -> Vec<Vec<String>> {
        self.heard.lock().expect("no panic").clone()
    }

    /// The most commands that lay before it when it answered one, that one with them.
    pub fn deepest(&self) -> usize {
        *self.deepest.lock().expect("no panic")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it from waiting for a client.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn talk(
    mut to: TcpStream,
    deepest: &Mutex<usize>,
    hear: impl Fn(&str),
    mut answer: impl FnMut(&str) -> Answer,
) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    let mut from = BufReader::new(to.try_clone()?);
    let mut command = String::new();
    loop {
        match answer(&command) {
            Answer::Say(said) => to.write_all(&said)?,
            Answer::SayAndForget(said) => {
                from.consume(from.buffer().len());
                to.write_all(&said)?;
            }
            Answer::Repeat(said, again) => {
                to.write_all(&said)?;
                loop {
                    to.write_all(&again)?;
                }
            }
            Answer::SayAndClose(said) => return to.write_all(&said),
            Answer::Stall => {
                return std::io::copy(&mut from.by_ref(), &mut std::io::sink()).map(drop);
            }
        }
        let has_waited = !from.buffer().is_empty();
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !has_waited {
            let waiting = 1 + from.buffer().iter().filter(|&&octet| octet == b'\n').count();
            let mut deepest = deepest.lock().expect("no panic");
            *deepest = waiting.max(*deepest);
        }
        command = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        hear(&command);
    }
}

/// A maildrop that is served as RFC 1939 has it, by a server of few words.
#[derive(Clone)]
pub struct Served {
    /// The capabilities that CAPA lists; there is no CAPA if this is `None`.
    pub capabilities: Option<&'static str>,
    /// UIDLs and messages, these with CR LF.
    pub messages: Vec<(String, Vec<u8>)>,
}

impl Served {
    /// Makes so many small messages, named `uidl1` and so on.
    pub fn of(count: usize) -> Self {
        let message = |n| {
            format!("Date: 6 May\r\nMessage-ID: <{n}>\r\nX-Dot: x\r\n.y: z\r\n\r\n.body of {n}\r\n")
        };
        let messages = (1..=count).map(|n| (format!("uidl{n}"), message(n).into_bytes()));
        Self {
            capabilities: Some("TOP\r\nUIDL\r\nUSER\r\nPIPELINING\r\n"),
            messages: messages.collect(),
        }
    }

    /// The same with other capabilities.
    pub fn saying(mut self, capabilities: Option<&'static str>) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The right answer to `command`.
    pub fn answer(&self, command: &str) -> Answer {
        let words: Vec<&str> = command.split(' ').collect();
        let numbered = || (1..).zip(&self.messages);
        Answer::Say(match words[0] {
            "CAPA" => match self.capabilities {
                Some(capabilities) => format!("+OK\r\n{capabilities}.\r\n").into_bytes(),
                None => b"-ERR what?\r\n".to_vec(),
            },
            "UIDL" => {
                let lines = numbered().map(|(n, (uidl, _))| format!("{n} {uidl}\r\n"));
                format!("+OK\r\n{}.\r\n", lines.collect::<String>()).into_bytes()
            }
            "LIST" => {
                let lines = numbered().map(|(n, (_, m))| format!("{n} {}\r\n", m.len()));
                format!("+OK\r\n{}.\r\n", lines.collect::<String>()).into_bytes()
            }
            "TOP" | "RETR" => {
                let message = &self.messages[words[1].parse::<usize>().expect("a number") - 1].1;
                match words.get(2).map(|lines| lines.parse().expect("a number")) {
                    Some(lines) => multi_line(&message[..top_end(message, lines)]),
                    None => multi_line(message),
                }
            }
            "" | "USER" | "PASS" | "NOOP" | "QUIT" | "UTF8" => b"+OK\r\n".to_vec(),
            _ => b"-ERR what?\r\n".to_vec(),
        })
    }
}

/// The place where the header of a message with CR LF ends, the empty line with it.
pub fn header_end(message: &[u8]) -> usize {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n");
    end.map_or(message.len(), |end| end + 4)
}

/// The place where TOP ends if it asks for so many lines of a body.
fn top_end(message: &[u8], lines: usize) -> usize {
    let header = header_end(message);
    let body = message[header..].split_inclusive(|&octet| octet == b'\n');
    header + body.take(lines).map(<[u8]>::len).sum::<usize>()
}

/// An answer of several lines, dot-stuffed.
pub fn multi_line(content: &[u8]) -> Vec<u8> {
    let mut said = b"+OK\r\n".to_vec();
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            said.push(b'.');
        }
        said.extend_from_slice(line);
    }
    said.extend_from_slice(b".\r\n");
    said
}

/// The answers that a server gave once, by command, from tests/data/pop3.
pub fn transcript(name: &str) -> HashMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pop3").join(name);
    let octets = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut answers = HashMap::new();
    let mut command = String::new();
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        match line.strip_prefix(b"> ") {
            Some(asked) => {
                command = String::from_utf8(asked.trim_ascii_end().into()).expect("ASCII")
            }
            None => answers.entry(command.clone()).or_insert_with(Vec::new).extend_from_slice(line),
        }
    }
    answers
}

/// A server that gives the answers which one gave once, and lets everybody in.
pub fn replay(answers: HashMap<String, Vec<u8>>) -> Peer {
    Peer::start(move |_, command| match answers.get(command) {
        Some(said) => Answer::Say(said.clone()),
        None => match command.split(' ').next() {
            Some("" | "USER" | "PASS" | "NOOP" | "QUIT" | "UTF8") => "+OK\r\n".into(),
            _ => "-ERR what?\r\n".into(),
        },
    })
}
