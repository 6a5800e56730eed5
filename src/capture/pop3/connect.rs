//! From a host's name to a session that is logged in: TCP, TLS by rustls, and whom to trust.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, InvalidMessage,
    PeerIncompatible, RootCertStore, SignatureScheme, StreamOwned,
};
use rustls_native_certs::CertificateResult;
use sha2::{Digest, Sha256};

use crate::capture::pop3::account::{Account, Credential};
use crate::capture::pop3::fault::Fault;
use crate::capture::pop3::learnt::{Learnt, ServerTraits};
use crate::capture::pop3::pin::Pin;
use crate::capture::pop3::secret::Secret;
use crate::capture::pop3::server::{Security, Server, Trust};
use crate::capture::pop3::session::Session;
use crate::text::printable;

/// A connection, with or without TLS.
pub enum Stream {
    /// As it is.
    Clear(TcpStream),
    /// Within TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(buffer),
            Self::Tls(stream) => read_step(stream, buffer),
        }
    }
}

/// Takes from the line once. rustls itself reads on until a record is whole, however slowly it
/// comes; `Interrupted` lets the caller look at the clock.
fn read_step(
    tls: &mut StreamOwned<ClientConnection, TcpStream>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let is_nothing_yet = |read: &io::Result<usize>| {
        read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let before = tls.conn.reader().read(buffer);
    if !is_nothing_yet(&before) {
        return before;
    }
    tls.conn.complete_io(&mut tls.sock)?;
    let read = tls.conn.reader().read(buffer);
    if is_nothing_yet(&read) { Err(ErrorKind::Interrupted.into()) } else { read }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.write(octets),
            Self::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Connects, secures the line as `server` says, and logs in. Asks for `UTF8` where that is offered.
/// The capabilities before the login are asked for once, and `learnt`. Where a token is refused,
/// another is asked for, and tried once if it differs.
///
/// # Errors
///
/// [`Fault`]. The password was sent only where the line was as secret as `server` says.
pub fn log_in(
    server: &Server,
    account: &Account,
    timeout: Duration,
    learnt: &Learnt,
) -> Result<Session<Stream>, Fault> {
    let tokens = match &account.credential {
        Credential::Password(password) => {
            return open(server, account, password, timeout, learnt);
        }
        Credential::Token(tokens) => tokens,
    };
    let token_but = |refused| tokens.token(&account.login, refused).map_err(Fault::NoToken);
    let token = token_but(None)?;
    match open(server, account, &token, timeout, learnt) {
        // It may have expired.
        Err(Fault::Login(refusal)) if !refusal.is_temporary() => {
            let next = token_but(Some(&token))?;
            if next.octets() == token.octets() {
                return Err(Fault::Login(refusal));
            }
            open(server, account, &next, timeout, learnt)
        }
        opened => opened,
    }
}

/// One try, with this password or token.
fn open(
    server: &Server,
    account: &Account,
    secret: &Secret,
    timeout: Duration,
    learnt: &Learnt,
) -> Result<Session<Stream>, Fault> {
    let tcp = dial(server, timeout)?;
    let mut session = match server.security {
        Security::Clear => greeted(Stream::Clear(tcp), timeout)?,
        Security::Tls => greeted(secured(tcp, server, timeout)?, timeout)?,
        Security::StartTls => {
            let in_the_clear = greeted(tcp, timeout)?;
            let greeting = in_the_clear.greeting().to_vec();
            let tcp = in_the_clear.start_tls()?;
            let mut session = Session::new(secured(tcp, server, timeout)?, timeout);
            session.set_greeting(greeting);
            session
        }
    };
    if server.security != Security::Clear {
        session.set_secret();
    }
    if let Some(capabilities) = learnt.known().capabilities {
        session.set_capabilities(capabilities);
    } else {
        session.ask_capabilities()?;
        let capabilities = Some(session.capabilities().clone());
        learnt.learn(&ServerTraits { capabilities, ..ServerTraits::default() });
    }
    // RFC 6856 wants it said before the login, and Courier's server takes it after.
    session.ask_utf8()?;
    session.log_in(account, secret)?;
    session.ask_capabilities()?;
    session.ask_utf8()?;
    Ok(session)
}

fn greeted<S: Read + Write>(stream: S, timeout: Duration) -> Result<Session<S>, Fault> {
    let mut session = Session::new(stream, timeout);
    session.be_greeted()?;
    Ok(session)
}

/// Tries each address of the host.
fn dial(server: &Server, timeout: Duration) -> Result<TcpStream, Fault> {
    let host = || printable(server.host.as_bytes());
    let no_address = |error| Fault::NoAddress { host: host(), error };
    let addresses = (server.host.as_str(), server.port).to_socket_addrs().map_err(no_address)?;
    let mut last = None;
    for address in addresses {
        let connected = TcpStream::connect_timeout(&address, timeout).and_then(|tcp| {
            tcp.set_nodelay(true)?;
            tcp.set_read_timeout(Some(timeout))?;
            tcp.set_write_timeout(Some(timeout))?;
            Ok(tcp)
        });
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = Some(Fault::Connect { at: address.to_string(), error }),
        }
    }
    Err(last.unwrap_or_else(|| no_address(ErrorKind::NotFound.into())))
}

/// Shakes hands. The fault has what the server showed, and why we did not take it.
fn secured(mut tcp: TcpStream, server: &Server, timeout: Duration) -> Result<Stream, Fault> {
    let name = ServerName::try_from(server.host.clone()).map_err(|_| Fault::Tls {
        why: "the host's name is none that a certificate can have".into(),
    })?;
    let judge = Arc::new(Judge::new(&server.trust)?);
    let config = ClientConfig::builder_with_provider(Arc::clone(&judge.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| judge.fault(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&judge) as _)
        .with_no_client_auth();
    let mut tls =
        ClientConnection::new(Arc::new(config), name).map_err(|error| judge.fault(&error))?;

    let until = Instant::now() + timeout;
    while tls.is_handshaking() {
        while tls.wants_write() {
            tls.write_tls(&mut tcp).map_err(|error| broken(error, timeout))?;
        }
        if !tls.is_handshaking() {
            break;
        }
        if tls.read_tls(&mut tcp).map_err(|error| broken(error, timeout))? == 0 {
            return Err(Fault::Dropped { command: HANDSHAKE });
        }
        if let Err(error) = tls.process_new_packets() {
            // This tells the server why; it need not hear it.
            let _ = tls.write_tls(&mut tcp);
            return Err(judge.fault(&error));
        }
        if Instant::now() > until {
            return Err(Fault::Stalled { command: HANDSHAKE, patience: timeout });
        }
    }
    Ok(Stream::Tls(Box::new(StreamOwned::new(tls, tcp))))
}

const HANDSHAKE: &str = "the TLS handshake";

fn broken(error: io::Error, patience: Duration) -> Fault {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Fault::Stalled { command: HANDSHAKE, patience }
        }
        _ => Fault::Broken { command: HANDSHAKE, error },
    }
}

/// Judges certificates as [`Trust`] says, and remembers the one it was shown.
struct Judge {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    /// There is one with [`Trust::System`].
    roots: Option<Arc<WebPkiServerVerifier>>,
    shown: Mutex<Option<Pin>>,
}

impl Judge {
    fn new(trust: &Trust) -> Result<Self, Fault> {
        let roots = match trust {
            Trust::System => Some(system_roots()?),
            Trust::Pinned(_) | Trust::Anything => None,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { trust: trust.clone(), provider, roots, shown: Mutex::new(None) })
    }

    /// Says what rustls says in words that help.
    fn fault(&self, error: &rustls::Error) -> Fault {
        let shown = *self.shown.lock();
        match (error, &self.trust, shown) {
            (rustls::Error::InvalidCertificate(_), Trust::Pinned(pinned), Some(found))
                if found != *pinned =>
            {
                Fault::OtherCertificate { found, pinned: *pinned }
            }
            (rustls::Error::InvalidCertificate(why), _, Some(pin)) => {
                Fault::Untrusted { pin, why: printable(why.to_string().as_bytes()) }
            }
            (
                rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
                | rustls::Error::PeerIncompatible(
                    PeerIncompatible::ServerDoesNotSupportTls12Or13
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
                ),
                _,
                _,
            ) => Fault::OldTls,
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), _, _) => {
                Fault::Tls { why: "it does not speak TLS from the first octet; STLS may do".into() }
            }
            _ => Fault::Tls { why: printable(error.to_string().as_bytes()) },
        }
    }
}

/// Whom a machine trusts, once that could be read.
#[derive(Default)]
struct Roots(OnceCell<Arc<WebPkiServerVerifier>>);

impl Roots {
    /// Reads them, unless an earlier time could.
    fn get_or_load(
        &self,
        load: impl FnOnce() -> CertificateResult,
    ) -> Result<Arc<WebPkiServerVerifier>, Fault> {
        let read = || {
            let loaded = load();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(loaded.certs);
            if roots.is_empty() {
                let why = loaded.errors.first().map(ToString::to_string);
                return Err(why.unwrap_or_else(|| "none found".into()));
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| error.to_string())
        };
        let why = |why: String| Fault::NoRoots { why: printable(why.as_bytes()) };
        self.0.get_or_try_init(read).cloned().map_err(why)
    }
}

/// This machine's roots.
fn system_roots() -> Result<Arc<WebPkiServerVerifier>, Fault> {
    static ROOTS: Roots = Roots(OnceCell::new());
    ROOTS.get_or_load(rustls_native_certs::load_native_certs)
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Judge({:?})", self.trust)
    }
}

impl Judge {
    /// Checks a signature of the handshake. Old servers have keys of 1024 bits, which ring does not
    /// check: whoever takes any certificate takes any key.
    fn check_signature<F>(&self, check: F) -> Result<HandshakeSignatureValid, rustls::Error>
    where
        F: FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, rustls::Error>,
    {
        match self.trust {
            Trust::Anything => Ok(HandshakeSignatureValid::assertion()),
            _ => check(&self.provider.signature_verification_algorithms),
        }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pin = Pin(Sha256::digest(end_entity).into());
        *self.shown.lock() = Some(pin);
        let is_taken = match (&self.trust, &self.roots) {
            (Trust::Anything, _) => true,
            (Trust::Pinned(pinned), _) => *pinned == pin,
            (Trust::System, Some(roots)) => {
                return roots.verify_server_cert(
                    end_entity,
                    intermediates,
                    name,
                    ocsp_response,
                    now,
                );
            }
            (Trust::System, None) => false,
        };
        if is_taken {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(|algorithms| {
            rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(|algorithms| {
            rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1` made it, with
    /// `-subj /CN=r -outform der`.
    const AUTHORITY: &str = "\
        MIIBbjCCARWgAwIBAgIUEXd9oQ6r1/FWSJPNPIazPFU8GkgwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwB\
        cjAgFw0yNjExMzAwMzU2MzFaGA8yMTI2MTEwNjAzNTYzMVowDDEKMAgGA1UEAwwBcjBZMBMGByqGSM49\
        AgEGCCqGSM49AwEHA0IABMZKy/jZSsoOGWGXs+ngV5LmQp7IEo+jHyTnE6hljHtnA51TV0f3Q+32sEg8\
        QGRnEN3818dCbcEbJVR3pAFzqUqjUzBRMB0GA1UdDgQWBBQybrigl8JTrtW50yIJsz+AN/kNTjAfBgNV\
        HSMEGDAWgBQybrigl8JTrtW50yIJsz+AN/kNTjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cA\
        MEQCIHGHhhxlcUxe9zI0JDz/oTfhNts49bdd0Xsh71QFxKECAiBHFr75KhTZwqvULWv6uriOo6Dszde2\
        Kxue//qq9K93Qw==";

    #[test]
    fn roots_that_could_not_be_read_are_read_again_and_then_no_more() {
        let roots = Roots::default();
        let nothing = CertificateResult::default;
        let fault = roots.get_or_load(nothing).unwrap_err();
        assert!(matches!(&fault, Fault::NoRoots { why } if why == "none found"), "{fault}");
        let authority = || {
            let mut loaded = nothing();
            loaded.certs.push(STANDARD.decode(AUTHORITY).unwrap().into());
            loaded
        };
        let first = roots.get_or_load(authority).unwrap();
        let second = roots.get_or_load(|| panic!("they are there")).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }
}
