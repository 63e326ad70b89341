//! QUIC with the mutual TLS of a cluster's own authority, and checked frames.
//!
//! Three layers, each usable without the ones after it:
//!
//! - **certificates** ([`create`], [`load_or_create`], [`Identity`]): the cluster's own authority, and who this
//!   process is under it. There is no other trust: system roots are never consulted.
//! - **connections** ([`Endpoint`], [`Connector`], [`Connection`]): QUIC with TLS 1.3, both sides authenticated,
//!   tuned per [`Profile`].
//! - **frames** ([`FrameOut`], [`Frame`], [`read_frame`], [`begin_frame`], [`write_frame`], [`encode`], [`decode`]): a
//!   fixed header,
//!   a small `meta` part and a large `body`, checksummed together and checked against limits before anything is
//!   allocated.
//!
//! What this crate deliberately does not do: it never looks inside a frame, knows no request, shard or replica,
//! and does not retry. The layouts of frame and admission note are described at [`FrameOut`] and [`Connection`].

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

mod certs;
mod connection;
mod endpoint;
mod frame;
mod transport;

pub use certs::{CertError, Identity, Role, create, load_or_create};
pub use connection::{CallError, Connection, LostError};
pub use endpoint::{AcceptLimits, BindError, ConnectError, Connector, Endpoint, Release, Service};
pub use frame::{
    Arriving, BODY_ALIGN, Frame, FrameError, FrameLimits, FrameOut, HEADER_LEN, META_ALIGN, begin_frame,
    decode, encode, read_frame, write_frame,
};
pub use quinn::{RecvStream, SendStream};
pub use transport::Profile;
