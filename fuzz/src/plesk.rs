//! What a look at a Plesk machine reads: sockets, packages, names of units, Courier's settings.

use uidl_keep::capture::find::plesk::evidence::{Evidence, Rank, ServiceSign};
use uidl_keep::capture::find::plesk::files::{
    installed_packages, listening, service_of_program, service_of_unit, takes_short_names,
};

/// The input as each of the files, and its lines as names.
pub fn check(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    assert!(listening(&text).len() < text.lines().count().max(1));
    let packages = installed_packages(&text);
    for (_, package) in &packages {
        assert!(text.contains(&format!("Package: {package}")));
    }
    // Other stanzas around a stanza change nothing. A CR before the last line end would: it is part
    // of a line end, or of the line.
    if !text.contains('\r') {
        let around = ["Package: x", &text, "Package: plesk-dovecot\nStatus: no installed\n"];
        let more = installed_packages(&around.join("\n\n")).len();
        assert_eq!(more, packages.len() + 1, "a stanza is not read by itself");
    }
    takes_short_names(&text);

    let mut signs = Vec::new();
    for name in text.lines() {
        if let Some(service) = service_of_unit(name) {
            assert_eq!(service_of_unit(name.trim_end_matches(".service")), Some(service));
            signs.push(ServiceSign { rank: Rank::Enabled, of: Some(service), what: name.into() });
        }
        if let Some(service) = service_of_program(name) {
            assert_eq!(service_of_program(&format!("/usr/{name}")), Some(service));
            signs.push(ServiceSign { rank: Rank::Listens, of: Some(service), what: name.into() });
        }
    }
    let services = |rank| signs.iter().filter(move |sign| sign.rank == rank).map(|sign| sign.of);
    let all_listen = services(Rank::Listens).collect::<Vec<_>>();
    let evidence = Evidence { signs: signs.clone(), ..Evidence::default() };
    if let Ok(verdict) = evidence.verdict() {
        assert!(
            all_listen.iter().all(|of| *of == Some(verdict.service)),
            "one who listens says no"
        );
    }
}
