//! The files that name a service: units, packages, sockets.
#![forbid(unsafe_code)]

use crate::capture::find::plesk::evidence::Service;

/// The service of a program, by the path of its file; `None` for any other.
pub fn service_of_program(path: &str) -> Option<Service> {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name {
        "couriertcpd" | "courierpop3login" | "courierpop3d" => Some(Service::Courier),
        "dovecot" | "pop3-login" => Some(Service::Dovecot),
        _ => None,
    }
}

/// The service of a systemd unit or an init script, by its name; `None` for any other.
///
/// Plesk calls Courier's `courier-pop3d` and `courier-pop3s`, or starts all of it by
/// `courier-imap`; Debian's are `courier-pop` and `courier-pop-ssl`.
pub fn service_of_unit(name: &str) -> Option<Service> {
    let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".socket"));
    match stem.unwrap_or(name) {
        "courier-pop3d" | "courier-pop3s" | "courier-pop3d-ssl" | "courier-pop"
        | "courier-pop-ssl" | "courier-imap" => Some(Service::Courier),
        "dovecot" => Some(Service::Dovecot),
        _ => None,
    }
}

/// The service of a Debian package, by its name; `None` for any other.
fn service_of_package(name: &str) -> Option<Service> {
    match name {
        "psa-courier-imap" | "courier-pop" => Some(Service::Courier),
        "plesk-dovecot" | "dovecot-pop3d" => Some(Service::Dovecot),
        _ => None,
    }
}

/// The packages of either server that are installed, in Debian's `/var/lib/dpkg/status`. Those of
/// which only the configuration is left are not.
pub fn installed_packages(status: &str) -> Vec<(Service, &str)> {
    let stanzas = status.split("\n\n").filter_map(|stanza| {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
        let name = field("Package: ")?;
        let is_installed = field("Status: ").is_some_and(|status| status.ends_with(" installed"));
        service_of_package(name).filter(|_| is_installed).map(|service| (service, name))
    });
    stanzas.collect()
}

/// A socket that is listened on, of `/proc/net/tcp` or `/proc/net/tcp6`: the port and the inode.
pub fn listening(table: &str) -> Vec<(u16, u64)> {
    /// `TCP_LISTEN` of `include/net/tcp_states.h`.
    const LISTEN: &str = "0A";
    let lines = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (_, port) = fields.next()?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some((port, inode))
    });
    lines.collect()
}

/// Whether Courier's `pop3d` lets clients log in without a domain: `SHORTNAMES=1`, which Plesk
/// sets.
pub fn takes_short_names(pop3d: &str) -> bool {
    pop3d.lines().any(|line| line.trim() == "SHORTNAMES=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_which_only_the_configuration_is_left_is_not_installed() {
        let status = "Package: psa-courier-imap\nStatus: deinstall ok config-files\n\n\
                      Package: plesk-dovecot\nPriority: extra\nStatus: install ok installed\n\n\
                      Package: dovecot-core\nStatus: install ok installed\n";
        assert_eq!(installed_packages(status), [(Service::Dovecot, "plesk-dovecot")]);
    }

    #[test]
    fn only_sockets_that_wait_for_connections_listen() {
        let table = concat!(
            "  sl  local_address rem_address   st tx_queue rx_queue ",
            "tr tm->when retrnsmt   uid  timeout inode\n",
            "   0: 00000000:006E 00000000:0000 0A ",
            "00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n",
            "   1: 0100007F:006E 0100007F:D431 01 ",
            "00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n",
            "   2: 00000000000000000000000000000000:03E3 ",
            "00000000000000000000000000000000:0000 0A ",
            "00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n",
        );
        assert_eq!(listening(table), [(110, 4711), (995, 4713)]);
    }

    #[test]
    fn short_names_are_on_where_plesk_says_so() {
        assert!(takes_short_names("A=1\nSHORTNAMES=1\n"));
        assert!(!takes_short_names("#SHORTNAMES=1\nSHORTNAMES=0\n"));
    }
}
