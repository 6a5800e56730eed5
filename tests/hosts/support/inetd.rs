//! A server that inetd starts: each connection has one process, with the connection as its stdin
//! and stdout.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A port of 127.0.0.1 on which such a server answers. It is closed on drop, with the sessions on
/// it.
pub struct Inetd {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Inetd {
    /// Runs that program for each connection.
    pub fn start(program: impl Fn() -> Command + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let closing = Arc::new(AtomicBool::new(false));
        let accepting = {
            let closing = Arc::clone(&closing);
            thread::spawn(move || accept(&listener, &closing, program))
        };
        Self { address, closing, accepting: Some(accepting) }
    }

    /// The address to which clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // It waits for a connection: here is one.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, closing: &AtomicBool, program: impl Fn() -> Command) {
    let mut sessions: Vec<Child> = Vec::new();
    for connection in listener.incoming() {
        if closing.load(Ordering::SeqCst) {
            break;
        }
        sessions.retain_mut(|session| session.try_wait().expect("our child").is_none());
        let connection = connection.expect("a client");
        // Some of them write an answer in pieces.
        connection.set_nodelay(true).expect("a socket");
        let out = OwnedFd::from(connection.try_clone().expect("a socket"));
        let session = program()
            .stdin(OwnedFd::from(connection))
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .expect("a server's program");
        sessions.push(session);
    }
    for mut session in sessions {
        let _ = session.kill();
        let _ = session.wait();
    }
}
