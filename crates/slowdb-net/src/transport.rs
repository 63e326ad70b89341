//! How QUIC is tuned: windows per kind of connection, datagram size per kind of path.
//!
//! Figures were chosen with `examples/throughput.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// What a connection is for. Decides how much may be under way on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Small messages between nodes that must not wait behind bulk data: votes, heartbeats.
    Control,
    /// Bulk data between nodes, on long-lived streams.
    Data,
    /// A client's requests, each on a stream of its own.
    Client,
}

/// The numbers behind a profile. Windows bound what the other side can make this one hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) streams_bi_max: u32,
    pub(crate) streams_uni_max: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) send_window: u64,
}

const MIB: u32 = 1 << 20;

impl Profile {
    pub(crate) const fn tuning(self) -> Tuning {
        match self {
            Self::Control => Tuning {
                streams_bi_max: 64,
                streams_uni_max: 64,
                stream_window: MIB,
                connection_window: 4 * MIB,
                send_window: 4 << 20,
            },
            Self::Data => Tuning {
                streams_bi_max: 4096,
                streams_uni_max: 4096,
                stream_window: 8 * MIB,
                connection_window: 64 * MIB,
                send_window: 16 << 20,
            },
            Self::Client => Tuning {
                streams_bi_max: 1024,
                streams_uni_max: 64,
                stream_window: 8 * MIB,
                connection_window: 32 * MIB,
                send_window: 16 << 20,
            },
        }
    }
}

impl Tuning {
    /// What an accepting side starts from before it knows which profile the connection has: the smallest grants of
    /// all, which can be raised once it is known. The window of streams cannot, so it is the largest.
    pub(crate) fn before_known(profiles: impl Iterator<Item = Profile>) -> Option<Self> {
        profiles.map(Profile::tuning).reduce(|a, b| Self {
            streams_bi_max: a.streams_bi_max.min(b.streams_bi_max),
            streams_uni_max: a.streams_uni_max.min(b.streams_uni_max),
            stream_window: a.stream_window.max(b.stream_window),
            connection_window: a.connection_window.min(b.connection_window),
            send_window: a.send_window.min(b.send_window),
        })
    }

    /// Gives a connection its full grants.
    pub(crate) fn grant(&self, connection: &quinn::Connection) {
        connection.set_max_concurrent_bi_streams(self.streams_bi_max.into());
        connection.set_max_concurrent_uni_streams(self.streams_uni_max.into());
        connection.set_receive_window(self.connection_window.into());
        connection.set_send_window(self.send_window);
    }
}

/// Silence after which a connection counts as lost.
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(5_000); // milliseconds
const KEEP_ALIVE: Duration = Duration::from_millis(1_000);

/// Largest UDP payload this build takes, so that discovery can find jumbo frames.
pub(crate) const UDP_PAYLOAD_MAX: u16 = 9_000;
/// On loopback every size goes. Ten segments, the most that are sent in one system call, must fit in 65,507 bytes.
const LOOPBACK_MTU: u16 = 6_500;
/// Ethernet's jumbo frames less IPv6 and UDP headers.
const NETWORK_MTU_MAX: u16 = 8_952;

/// The transport settings for a connection with `tuning` to or from `remote`.
pub(crate) fn transport(tuning: &Tuning, remote: IpAddr) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(tuning.streams_bi_max.into())
        .max_concurrent_uni_streams(tuning.streams_uni_max.into())
        .stream_receive_window(tuning.stream_window.into())
        .receive_window(tuning.connection_window.into())
        .send_window(tuning.send_window)
        .max_idle_timeout(Some(IdleTimeout::from(IDLE_TIMEOUT)))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size(None);
    let mut congestion = CubicConfig::default();
    if is_loopback(remote) {
        config.initial_rtt(Duration::from_millis(10)).initial_mtu(LOOPBACK_MTU).mtu_discovery_config(None);
        congestion.initial_window(1 << 20);
    } else {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(NETWORK_MTU_MAX);
        config.initial_rtt(Duration::from_millis(100)).mtu_discovery_config(Some(discovery));
        congestion.initial_window(256 << 10);
    }
    config.congestion_controller_factory(Arc::new(congestion));
    Arc::new(config)
}

pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
