//! Dovecot's configuration: what leads out of a copy of it, and a format as doveconf prints it.

use uidl_keep::capture::find::doveconf::{leads_out, parse};

/// The input as a file of a configuration, and as a format.
pub fn check(octets: &[u8]) {
    let is_out = leads_out(octets);
    let one_leads_out = octets.split(|&octet| octet == b'\n').any(leads_out);
    assert_eq!(is_out, one_leads_out, "a line is not read by itself");
    let below = [octets, b"\n!include conf.d/*.conf\n"].concat();
    assert_eq!(leads_out(&below), is_out, "what stays inside changes the answer");
    assert!(leads_out(&[octets, b"\n!include_try /etc/x\n"].concat()));
    let text = String::from_utf8_lossy(octets);
    match parse(text.trim()) {
        Ok(format) => assert_eq!(parse(&format.to_string()).expect("our own spelling"), format),
        // The program escapes what an operator sees of it; the format is shown as ASCII.
        Err(error) => assert!(error.to_string().starts_with("pop3_uidl_format ")),
    }
}
