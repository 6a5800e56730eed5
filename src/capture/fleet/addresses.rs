//! Which names of servers are of one address: [`of`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::thread;

use parking_lot::Mutex;

use crate::capture::pop3::Server;

/// Looks up the addresses of all servers with so many threads, and gives each server the number of
/// its address, from 0. Servers are at one address when their lowest is the same. A server that has
/// none now is alone.
pub fn of(servers: &[Server], jobs: usize) -> Vec<usize> {
    let found: Mutex<Vec<Option<IpAddr>>> = Mutex::new(vec![None; servers.len()]);
    let left = Mutex::new((0..).zip(servers));
    thread::scope(|scope| {
        for _ in 0..jobs.min(servers.len()) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().next();
                    let Some((at, server)) = next else { return };
                    let address = lowest_address(server);
                    found.lock()[at] = address;
                }
            });
        }
    });
    let mut numbers = HashMap::new();
    let mut next = 0;
    let mut new = || {
        next += 1;
        next - 1
    };
    let found = found.into_inner();
    let number_of = |address: Option<IpAddr>| match address {
        Some(address) => *numbers.entry(address).or_insert_with(&mut new),
        None => new(),
    };
    found.into_iter().map(number_of).collect()
}

fn lowest_address(server: &Server) -> Option<IpAddr> {
    let addresses = (server.host.as_str(), server.port).to_socket_addrs().ok()?;
    addresses.map(|address| address.ip()).min()
}

#[cfg(test)]
mod tests {
    use crate::capture::pop3::{Security, Trust};

    use super::*;

    #[test]
    fn names_and_ports_of_one_address_are_one() {
        let hosts = ["127.0.0.2", "127.0.0.1", "no such host", "127.0.0.1", "::1", "no such host"];
        let servers: Vec<Server> = (110..)
            .zip(hosts)
            .map(|(port, host)| Server {
                host: host.into(),
                port,
                security: Security::Clear,
                trust: Trust::System,
            })
            .collect();
        assert_eq!(of(&servers, 3), [0, 1, 2, 1, 3, 4]);
        assert_eq!(of(&[], 3), [0; 0]);
    }
}
