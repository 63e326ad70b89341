//! A free port, for a node that tells others where it will be before it listens there.
//!
//! Chosen below those that the system hands out to sockets that do not care (above 32,767 on Linux), so that
//! nothing takes it by chance. Two processes that look at the same time are kept apart by a TCP listener on the
//! same number: nodes speak UDP, and so the two do not meet.

use crate::Error;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;
/// So many are tried.
const TRIES: u32 = 1_000;

/// A port that is kept from other nodes as long as this value lives.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) port: u16,
    _keepers: Vec<TcpListener>,
}

/// Finds a port that is free on every address of `host`.
pub(crate) fn reserve(host: &str) -> Result<Reserved, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = process::id().wrapping_mul(97);
    let mut reason = String::new();
    for _ in 0..TRIES {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + offset.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("all ports to choose from are ports");
        match try_reserve(host, port) {
            Ok(reserved) => return Ok(reserved),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(Error::NoFreePort { host: host.to_owned(), reason })
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn try_reserve(host: &str, port: u16) -> io::Result<Reserved> {
    let (mut keepers, mut problem) = (Vec::new(), None);
    for address in addresses(host, port)? {
        let keeper = TcpListener::bind(address).and_then(|keeper| {
            UdpSocket::bind(address)?;
            Ok(keeper)
        });
        match keeper {
            Ok(keeper) => keepers.push(keeper),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // As the node does: a family of addresses that this machine does not have is left out.
            Err(error) => problem = Some(error),
        }
    }
    if keepers.is_empty() {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(problem.unwrap_or_else(none));
    }
    Ok(Reserved { port, _keepers: keepers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_for_a_node_and_not_given_twice() {
        let held = reserve("localhost").expect("a free port");
        drop(UdpSocket::bind(("127.0.0.1", held.port)).expect("free for a node"));
        assert!(try_reserve("localhost", held.port).is_err());
        let other = reserve("localhost").expect("another one");
        assert_ne!(held.port, other.port);
    }

    #[test]
    fn a_host_that_is_not_here_has_no_free_port() {
        // Reserved for documentation, so no machine has it.
        let refused = reserve("192.0.2.1");
        assert!(
            matches!(&refused, Err(Error::NoFreePort { host, .. }) if host == "192.0.2.1"),
            "{refused:?}"
        );
    }
}
