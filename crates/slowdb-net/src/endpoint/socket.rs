//! UDP sockets, and QUIC on them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};

use quinn::{AsyncUdpSocket, EndpointConfig, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use crate::transport::UDP_PAYLOAD_MAX;

/// Room for bursts while this process is not scheduled. The system may grant less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Binds a socket with large buffers. IPv6 sockets take IPv6 only, so that both families can be bound side by side.
pub(super) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Small buffers cost speed under load, not correctness.
    for granted in [socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER)] {
        if let Err(error) = granted {
            tracing::debug!(%addr, %error, "cannot enlarge socket buffer");
        }
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A socket that others hold. It is closed, and its port free, when the last of them has let go: connections hold it too.
#[derive(Clone, Debug)]
pub(super) struct Held(Weak<dyn AsyncUdpSocket>);

impl Held {
    pub(super) fn is_closed(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Turns a socket into a QUIC endpoint.
pub(super) fn endpoint(
    socket: UdpSocket,
    mut config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<(quinn::Endpoint, Held)> {
    config.max_udp_payload_size(UDP_PAYLOAD_MAX).map_err(io::Error::other)?;
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket)?;
    let held = Held(Arc::downgrade(&socket));
    Ok((quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?, held))
}
