//! Who is on the other end of a peer connection, and whether it may be.
//!
//! The dialling node opens a bidirectional stream and sends a hello; the other side answers with its own, or
//! with a refusal. A refusal of another kind says that another live process is the node already, and that this one has to
//! stop. All are frames without a body whose meta is, little endian:
//!
//! ```text
//! hello    0..16   cluster id (zero: part of none yet)
//!          16..32  storage id, drawn when the storage path was made
//!          32..40  instance, drawn when the process started
//!          40..42  length of the node's id   u16, then the id
//!          ..      length of the id of the node it wants to speak to   u16, then the id
//!          ..      length of the note   u16, then the note, UTF-8
//! refusal  0..     the reason, UTF-8
//! ```

use crate::ids::NodeId;
use bytes::{BufMut, Bytes, BytesMut};

/// Frame kind of a hello.
pub(crate) const KIND_HELLO: u16 = 16;
/// Frame kind of a refusal.
pub(crate) const KIND_REFUSAL: u16 = 17;
/// Frame kind of a refusal because another process is this node: the one that is refused stops.
pub(crate) const KIND_DUPLICATE: u16 = 19;
/// Frame kind of consensus messages.
pub(crate) const KIND_MESSAGES: u16 = 18;

const TEXT_BYTES_MAX: usize = 256;

/// What a node says of itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its cluster; zero while it is part of none.
    pub cluster: [u8; 16],
    /// Drawn when its storage path was made: a wiped or foreign disk shows another one.
    pub storage: [u8; 16],
    /// Drawn when its process started: shows a restart.
    pub instance: u64,
    /// Its id.
    pub node: NodeId,
    /// Whom it takes the other side for.
    pub to: NodeId,
    /// What else the embedder has to say of itself, at most 256 bytes.
    pub note: String,
}

impl Hello {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&self.cluster);
        out.put_slice(&self.storage);
        out.put_u64_le(self.instance);
        for text in [self.node.as_str(), self.to.as_str(), &self.note] {
            out.put_u16_le(text.len() as u16);
            out.put_slice(text.as_bytes());
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (cluster, rest) = bytes.split_first_chunk::<16>()?;
        let (storage, rest) = rest.split_first_chunk::<16>()?;
        let (instance, rest) = rest.split_first_chunk::<8>()?;
        let instance = u64::from_le_bytes(*instance);
        let (node, rest) = text(rest)?;
        let (to, rest) = text(rest)?;
        let (note, rest) = text(rest)?;
        if node.is_empty() || to.is_empty() || !rest.is_empty() {
            return None;
        }
        let (node, to, note) = (NodeId::new(node), NodeId::new(to), note.to_owned());
        Some(Hello { cluster: *cluster, storage: *storage, instance, node, to, note })
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_le_bytes(*len));
    if len > TEXT_BYTES_MAX {
        return None;
    }
    let (text, rest) = rest.split_at_checked(len)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Decides who may be a peer. Called for every connection, in both directions.
pub trait Gate: Send + Sync + 'static {
    /// This node's own hello to `to`.
    fn hello(&self, to: &NodeId) -> Hello;
    /// Whether the node that sent this may speak with us; if not, why, in words for its operator. Remembers nothing of
    /// it: the sender may yet turn out to run on a copy of that node's storage.
    fn check(&self, hello: &Hello) -> Result<(), String>;
    /// As [`Gate::check`], and remembers what the node says of itself; may write to disk.
    fn admit(&self, hello: &Hello) -> Result<(), String>;
}
