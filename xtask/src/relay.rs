//! A UDP relay in front of each node of a local cluster, so that links can be cut, slowed and made to lose packets, each
//! direction by itself, without any rights on the machine.
//!
//! Nodes tell each other their relay's address (`--advertise`), so all that they send each other comes by here; who sends
//! is known by whose socket a packet comes from. Packets of others, such as clients that follow the nodes' map, pass.

use crate::process::ProcessId;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

/// Larger than any packet.
const PACKET_BYTES: usize = 65_536;
/// Senders that are remembered for one node; more are none that a test has.
const FLOWS_MAX: usize = 4_096;

/// How packets fare in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing arrives.
    pub cut: bool,
    /// Of a thousand packets, so many are lost.
    pub loss: u32,
    /// Each arrives so much later.
    pub delay: Duration,
}

/// What all relays know.
#[derive(Debug, Default)]
struct Shared {
    /// From, to → how packets fare. Links that are not named are as they are.
    links: BTreeMap<(String, String), Link>,
    /// The nodes' processes.
    processes: BTreeMap<String, ProcessId>,
    /// What losses are drawn from.
    draws: u64,
}

impl Shared {
    /// What becomes of a packet: `None` if it is lost, else how long it is held.
    fn fate(&mut self, from: Option<&str>, to: Option<&str>) -> Option<Duration> {
        let (Some(from), Some(to)) = (from, to) else { return Some(Duration::ZERO) };
        let link = *self.links.get(&(from.to_owned(), to.to_owned()))?;
        self.draws =
            self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lost = link.cut || ((self.draws >> 33) % 1000) < u64::from(link.loss);
        (!lost).then_some(link.delay)
    }
}

/// The relays of a cluster.
#[derive(Debug)]
pub struct Relays {
    shared: Arc<Mutex<Shared>>,
    tasks: BTreeMap<String, AbortHandle>,
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

impl Relays {
    /// No relay yet.
    pub(crate) fn new() -> Self {
        Relays { shared: Arc::default(), tasks: BTreeMap::new() }
    }

    /// Relays between `port` and the node that listens on `node_port`. To be called inside a tokio runtime.
    pub(crate) fn add(&mut self, node: &str, port: u16, node_port: u16) -> Result<()> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("a relay cannot listen on UDP port {port}"))?;
        socket.set_nonblocking(true)?;
        let front = Front {
            node: node.to_owned(),
            socket: Arc::new(UdpSocket::from_std(socket)?),
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, node_port)),
            shared: Arc::clone(&self.shared),
        };
        let known: Vec<String> = self.tasks.keys().cloned().collect();
        for other in known {
            let mut shared = self.lock();
            shared.links.insert((other.clone(), node.to_owned()), Link::default());
            shared.links.insert((node.to_owned(), other), Link::default());
        }
        self.tasks.insert(node.to_owned(), tokio::spawn(front.run()).abort_handle());
        Ok(())
    }

    /// A node runs as this process now.
    pub(crate) fn knows(&self, node: &str, process: ProcessId) {
        self.lock().processes.insert(node.to_owned(), process);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic while the lock is held")
    }

    /// From now on packets from one node to another fare like this.
    pub fn set(&self, from: &str, to: &str, link: Link) {
        self.lock().links.insert((from.to_owned(), to.to_owned()), link);
    }

    /// Cuts a node off from all others, both ways. Clients still reach it.
    pub fn isolate(&self, node: &str) {
        for ((from, to), link) in &mut self.lock().links {
            link.cut |= from == node || to == node;
        }
    }

    /// All links are as they should be.
    pub fn heal(&self) {
        self.lock().links.values_mut().for_each(|link| *link = Link::default());
    }
}

/// The relay in front of one node.
struct Front {
    node: String,
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

/// Packets of one sender, and their answers.
struct Flow {
    from: Option<String>,
    upstream: Arc<UdpSocket>,
}

impl Front {
    async fn run(self) {
        let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
        let mut answers = JoinSet::new();
        let mut packet = vec![0; PACKET_BYTES];
        loop {
            // An error tells of an earlier packet that found nobody; this socket goes on.
            let Ok((len, sender)) = self.socket.recv_from(&mut packet).await else { continue };
            if !flows.contains_key(&sender) {
                if flows.len() >= FLOWS_MAX {
                    continue;
                }
                let Ok(flow) = self.open(sender, &mut answers).await else { continue };
                flows.insert(sender, flow);
            }
            let flow = &flows[&sender];
            pass(&self.shared, flow.from.as_deref(), Some(&self.node), &packet[..len], &flow.upstream, None)
                .await;
        }
    }

    /// A sender that was not heard before.
    async fn open(&self, sender: SocketAddr, answers: &mut JoinSet<()>) -> Result<Flow> {
        let processes = self.shared.lock().expect("no panic while the lock is held").processes.clone();
        let from = owner(sender.port(), &processes);
        let upstream = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        upstream.connect(self.target).await?;
        let (back, socket, shared) =
            (Arc::clone(&upstream), Arc::clone(&self.socket), Arc::clone(&self.shared));
        let (node, to) = (self.node.clone(), from.clone());
        answers.spawn(async move {
            let mut packet = vec![0; PACKET_BYTES];
            loop {
                // The node may not run, or not run any more: then nobody answers.
                match back.recv(&mut packet).await {
                    Ok(len) => {
                        pass(&shared, Some(&node), to.as_deref(), &packet[..len], &socket, Some(sender))
                            .await;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        Ok(Flow { from, upstream })
    }
}

/// Sends a packet on, or not.
async fn pass(
    shared: &Mutex<Shared>,
    from: Option<&str>,
    to: Option<&str>,
    packet: &[u8],
    socket: &Arc<UdpSocket>,
    address: Option<SocketAddr>,
) {
    let fate = shared.lock().expect("no panic while the lock is held").fate(from, to);
    match fate {
        None => {}
        // What cannot be sent is lost, as on any network.
        Some(Duration::ZERO) => drop(send(socket, packet, address).await),
        Some(delay) => {
            let (socket, packet) = (Arc::clone(socket), packet.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                drop(send(&socket, &packet, address).await);
            });
        }
    }
}

async fn send(socket: &UdpSocket, packet: &[u8], address: Option<SocketAddr>) -> std::io::Result<usize> {
    match address {
        Some(address) => socket.send_to(packet, address).await,
        None => socket.send(packet).await,
    }
}

/// The node whose process has a UDP socket on this port.
fn owner(port: u16, processes: &BTreeMap<String, ProcessId>) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| inode_on(line, port)).collect::<Vec<_>>())
        .collect();
    let has = |process: &ProcessId| inodes.iter().any(|inode| has_socket(process.pid, *inode));
    processes.iter().find(|(_, process)| has(process)).map(|(node, _)| node.clone())
}

/// The inode in a line of the kernel's table of UDP sockets, if the socket is on this port.
fn inode_on(line: &str, port: u16) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (_, local) = words.nth(1)?.rsplit_once(':')?;
    if u16::from_str_radix(local, 16).ok()? != port {
        return None;
    }
    words.nth(7)?.parse().ok()
}

fn has_socket(pid: i32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == Path::new(&wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn the_table_of_sockets_is_read() {
        let line = "  391: 0100007F:4E20 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 1234567 2 0 0";
        assert_eq!(inode_on(line, 20_000), Some(1_234_567));
        assert_eq!(inode_on(line, 20_001), None);
        assert_eq!(inode_on("  sl  local_address rem_address   st tx_queue", 20_000), None);
    }

    #[tokio::test]
    async fn a_link_is_cut_one_way_and_healed() {
        let ports = crate::ports::reserve(2).expect("free ports");
        let node = UdpSocket::bind((Ipv4Addr::LOCALHOST, ports[0].port)).await.expect("a free port");
        let mut relays = Relays::new();
        relays.add("b", ports[1].port, ports[0].port).expect("a relay");
        // This process is node a.
        relays.knows("a", ProcessId::of(std::process::id()).expect("it runs"));
        for (from, to) in [("a", "b"), ("b", "a")] {
            relays.set(from, to, Link::default());
        }
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        sender.connect((Ipv4Addr::LOCALHOST, ports[1].port)).await.expect("it is local");
        let mut packet = [0; 16];

        sender.send(b"one").await.expect("sent");
        let (len, back) =
            tokio::time::timeout(SOON, node.recv_from(&mut packet)).await.expect("arrives").expect("read");
        assert_eq!(&packet[..len], b"one");

        // From a to b nothing passes; from b to a all does.
        relays.set("a", "b", Link { cut: true, ..Link::default() });
        sender.send(b"two").await.expect("sent");
        node.send_to(b"answer", back).await.expect("sent");
        let len = tokio::time::timeout(SOON, sender.recv(&mut packet)).await.expect("arrives").expect("read");
        assert_eq!(&packet[..len], b"answer");

        relays.heal();
        sender.send(b"three").await.expect("sent");
        let (len, _) =
            tokio::time::timeout(SOON, node.recv_from(&mut packet)).await.expect("arrives").expect("read");
        assert_eq!(&packet[..len], b"three", "what was sent into a cut link is gone");
    }
}
