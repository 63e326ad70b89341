//! Free ports on this machine.
//!
//! Nodes come back on the port they had, so a port must not be one that the system hands out to sockets
//! that do not care: those lie above 32,767 on Linux, ours below. A port is reserved against other runs of
//! this program, on the same machine at the same time, by a TCP listener on the same number: nodes speak
//! UDP, and so the two do not meet.

use anyhow::{Result, bail};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

/// A port that is kept from other runs as long as this value lives.
#[derive(Debug)]
pub struct Reserved {
    /// Its number.
    pub port: u16,
    _keeper: TcpListener,
}

/// Finds free ports.
pub fn reserve(count: usize) -> Result<Vec<Reserved>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = process::id().wrapping_mul(97);
    let mut found = Vec::new();
    for _ in 0..COUNT {
        if found.len() == count {
            return Ok(found);
        }
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + offset.wrapping_add(step) % COUNT) as u16;
        if let Some(reserved) = try_reserve(port) {
            found.push(reserved);
        }
    }
    bail!("no {count} free UDP ports from {FIRST} to {} on this machine", FIRST + COUNT)
}

fn try_reserve(port: u16) -> Option<Reserved> {
    let keeper = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
    Some(Reserved { port, _keeper: keeper })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_free_and_distinct() {
        let first = reserve(5).expect("free ports");
        let second = reserve(5).expect("free ports");
        let numbers: BTreeSet<u16> = first.iter().chain(&second).map(|r| r.port).collect();
        assert_eq!(numbers.len(), 10);
        for port in numbers {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("free for a node");
        }
    }

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let held = reserve(1).expect("a free port");
        assert!(try_reserve(held[0].port).is_none());
    }
}
