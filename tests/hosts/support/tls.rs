//! Certificates for servers that speak TLS.

use std::path::Path;
use std::process::Command;

use super::host::{Host, Line, Scratch};

/// A directory with a certificate of its own authority for `localhost` and 127.0.0.1: cert.pem,
/// key.pem, and ca.pem.
pub fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    make_certificates(dir.path());
    dir
}

/// The same where the programs of that host see it.
pub fn certificates_in(host: &Host) -> Scratch {
    let scratch = host.scratch();
    make_certificates(scratch.path());
    scratch
}

fn make_certificates(dir: &Path) {
    let made = |args: &str| {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
        let output = output.unwrap_or_else(|error| panic!("openssl: {error}"));
        assert!(output.status.success(), "openssl {args}: {output:?}");
        String::from_utf8(output.stdout).expect("ASCII")
    };
    let request = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj";
    made(&format!("{request} /CN=authority -keyout ca.key -out ca.pem"));
    made(&format!(
        "{request} /CN=old -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca.key -addext \
         subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
    ));
}

/// The SHA-256 of cert.pem in there, as openssl prints it.
pub fn fingerprint(certificates: &Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(certificates.join("cert.pem"))
        .output()
        .expect("openssl");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    text.trim().split_once('=').expect("a name before it").1.to_owned()
}

/// The lines of dovecot.conf by which a Dovecot shows that certificate, on its own POP3 port after
/// STLS and on `implicit` from the first octet.
pub fn shown_by_dovecot(host: &Host, certificates: &Scratch, implicit: u16) -> String {
    let dir = certificates.inside();
    let dir = dir.display();
    let shown = match host.line() {
        Line::V23 => format!("ssl_cert = <{dir}/cert.pem\nssl_key = <{dir}/key.pem\n"),
        Line::V24 => {
            format!("ssl_server_cert_file = {dir}/cert.pem\nssl_server_key_file = {dir}/key.pem\n")
        }
    };
    format!(
        "ssl = yes\n{shown}\
         service pop3-login {{\n  inet_listener pop3s {{\n    port = {implicit}\n    \
         ssl = yes\n  }}\n}}\n"
    )
}
