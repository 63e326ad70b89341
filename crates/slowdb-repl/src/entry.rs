//! What an entry of the log holds: one or more proposals, each with all that is needed to judge it later.
//!
//! ```text
//! entry     0      format      u8    1; 2 to compare digests
//!           1..4   zero
//!           4..8   proposals   u32   at least 1; 0 to compare digests
//!           8..16  floor       u64   every replica has everything up to this index (see below)
//!           16..   the proposals, one after the other
//!
//! proposal  0      level       u8    0 one, 1 quorum, 2 all
//!           1      retry       u8    1 if an earlier attempt may have got into the log
//!           2      late        u8    1 if it was overtaken and is offered again
//!           3      zero
//!           4..8   writes      u32   how many positions it takes
//!           8..24  client      [u8; 16]
//!           24..32 sequence    u64
//!           32..40 hlc         u64   hybrid logical time of the leader: milliseconds << 16 | counter
//!           40..48 origin      u64   replica id of the leader that accepted it
//!           48..52 body_len    u32
//!           52..56 zero
//!           56..   late, if it is: term, index and offset that it had (u64, u64, u32), zero u32, fork u64
//!           ..     body, zeros to a multiple of 8
//! ```
//!
//! An entry without bytes is what a new leader commits its term with. An entry of format 2 is a header without
//! proposals, followed by an intent (u64, see [`crate::Membership`]): whoever applies it notes the digest of its state,
//! so that digests can be compared, and the intent. The *floor* travels with the log so
//! that followers, too, know which entries no replica needs any more.

use slowdb_position::Position;

const ENTRY_HEADER_BYTES: usize = 16;
const PROPOSAL_HEADER_BYTES: usize = 56;
const LATE_BYTES: usize = 32;
const FORMAT: u8 = 1;
const FORMAT_COMPARE: u8 = 2;

/// When a proposal is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// Durable in the leader's log.
    One,
    /// Durable on a majority of voters and applied at the leader.
    Quorum,
    /// Durable on every member, and applied at the leader.
    All,
}

impl AckLevel {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(AckLevel::One),
            1 => Some(AckLevel::Quorum),
            2 => Some(AckLevel::All),
            _ => None,
        }
    }
}

/// All of a proposal but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalHeader {
    /// When it is acknowledged.
    pub level: AckLevel,
    /// Whether an earlier attempt may have got into the log.
    pub retry: bool,
    /// How many positions it takes; its writes have offsets from that of the first on.
    pub writes: u32,
    /// Who proposes.
    pub client: [u8; 16],
    /// The proposal's number at that client.
    pub sequence: u64,
    /// Hybrid logical time at the leader that accepted it: milliseconds << 16 | counter.
    pub hlc: u64,
    /// Replica id of that leader.
    pub origin: u64,
    /// Set if it was overtaken by a failover and is offered again; all else is as it was the first time.
    pub late: Option<Late>,
}

/// Where a proposal was that another history has overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Position that its first write had.
    pub was: Position,
    /// Up to this index, at least, its history and the one that overtook it are the same.
    pub fork: u64,
}

/// A proposal in an entry.
#[derive(Clone, Copy, Debug)]
pub struct ProposalView<'a> {
    /// All but the body.
    pub header: ProposalHeader,
    /// Position of its first write.
    pub first: Position,
    /// What the state machine applies.
    pub body: &'a [u8],
}

/// Lays out an entry.
#[derive(Debug)]
pub(crate) struct EntryBuilder {
    bytes: Vec<u8>,
    proposals: u32,
    writes: u32,
}

impl EntryBuilder {
    pub(crate) fn new(floor: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + capacity);
        bytes.extend_from_slice(&[FORMAT, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&floor.to_le_bytes());
        EntryBuilder { bytes, proposals: 0, writes: 0 }
    }

    /// The entry at which digests are compared, and an intent is noted.
    pub(crate) fn compare(floor: u64, intent: u64) -> Vec<u8> {
        let mut bytes = vec![FORMAT_COMPARE, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&floor.to_le_bytes());
        bytes.extend_from_slice(&intent.to_le_bytes());
        bytes
    }

    /// Adds a proposal and returns the offset of its first write.
    pub(crate) fn push(&mut self, header: &ProposalHeader, body: &[u8]) -> u32 {
        let offset = self.writes;
        Self::lay_out(&mut self.bytes, header, body);
        self.proposals += 1;
        self.writes += header.writes;
        offset
    }

    /// Appends one proposal as it is laid out in an entry.
    pub(crate) fn lay_out(bytes: &mut Vec<u8>, header: &ProposalHeader, body: &[u8]) {
        let late = header.late;
        bytes.extend_from_slice(&[header.level as u8, u8::from(header.retry), u8::from(late.is_some()), 0]);
        bytes.extend_from_slice(&header.writes.to_le_bytes());
        bytes.extend_from_slice(&header.client);
        bytes.extend_from_slice(&header.sequence.to_le_bytes());
        bytes.extend_from_slice(&header.hlc.to_le_bytes());
        bytes.extend_from_slice(&header.origin.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        if let Some(Late { was, fork }) = late {
            bytes.extend_from_slice(&was.term.to_le_bytes());
            bytes.extend_from_slice(&was.index.to_le_bytes());
            bytes.extend_from_slice(&u64::from(was.offset).to_le_bytes());
            bytes.extend_from_slice(&fork.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }

    /// The reverse of [`EntryBuilder::lay_out`], of nothing but one proposal.
    pub(crate) fn read_back(bytes: &[u8]) -> Option<(ProposalHeader, &[u8])> {
        let (header, body, rest) = split_proposal(bytes)?;
        rest.is_empty().then_some((header, body))
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes[4..8].copy_from_slice(&self.proposals.to_le_bytes());
        self.bytes
    }

    /// Bytes of an entry with proposals that take so many, at most. An overtaken proposal takes as many in the record that
    /// keeps it.
    pub(crate) fn entry_bytes(proposals: usize) -> usize {
        ENTRY_HEADER_BYTES + proposals
    }

    /// Bytes that a proposal takes in an entry, at most: it may be late one day.
    pub(crate) fn proposal_bytes(body_len: usize) -> usize {
        PROPOSAL_HEADER_BYTES + LATE_BYTES + body_len.next_multiple_of(8)
    }
}

/// An entry's bytes that do not follow the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry at {term}.{index} does not follow the layout: {what}")]
pub struct EntryError {
    term: u64,
    index: u64,
    what: &'static str,
}

/// An entry whose layout has been checked.
#[derive(Debug)]
pub struct EntryView<'a> {
    floor: u64,
    intent: Option<u64>,
    proposals: Vec<ProposalView<'a>>,
}

impl<'a> EntryView<'a> {
    /// Checks the layout of the entry at (term, index).
    ///
    /// # Errors
    /// [`EntryError`] says what does not follow it.
    pub fn parse(term: u64, index: u64, bytes: &'a [u8]) -> Result<Self, EntryError> {
        let error = |what| EntryError { term, index, what };
        let Some((header, mut rest)) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>() else {
            return Err(error("it ends inside the header"));
        };
        if header[0] == FORMAT_COMPARE && rest.len() == 8 {
            return Ok(EntryView {
                floor: u64_at(header, 8),
                intent: Some(u64_at(rest, 0)),
                proposals: Vec::new(),
            });
        }
        if header[0] != FORMAT {
            return Err(error("its format is unknown"));
        }
        let count = u32_at(header, 4);
        let mut proposals = Vec::new();
        let mut offset = 0u32;
        for _ in 0..count {
            let (header, body, tail) =
                split_proposal(rest).ok_or_else(|| error("a proposal is malformed"))?;
            proposals.push(ProposalView { header, first: Position { term, index, offset }, body });
            offset = offset.checked_add(header.writes).ok_or_else(|| error("too many writes"))?;
            rest = tail;
        }
        if !rest.is_empty() || proposals.is_empty() {
            return Err(error("its length does not match its proposals"));
        }
        Ok(EntryView { floor: u64_at(header, 8), intent: None, proposals })
    }

    /// Every replica has everything up to this index.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether an entry of this length can be one at which digests are compared.
    pub(crate) fn may_compare(len: u32) -> bool {
        len as usize == ENTRY_HEADER_BYTES + 8
    }

    /// If digests are to be compared at this entry: the intent to be noted.
    pub fn compares(&self) -> Option<u64> {
        self.intent
    }

    /// The proposals in order.
    pub fn proposals(&self) -> &[ProposalView<'a>] {
        &self.proposals
    }
}

fn split_proposal(bytes: &[u8]) -> Option<(ProposalHeader, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<PROPOSAL_HEADER_BYTES>()?;
    let mut client = [0; 16];
    client.copy_from_slice(&head[8..24]);
    let (late, rest) = match head[2] {
        0 => (None, rest),
        1 => {
            let (late, rest) = rest.split_first_chunk::<LATE_BYTES>()?;
            let offset = u32::try_from(u64_at(late, 16)).ok()?;
            let was = Position { term: u64_at(late, 0), index: u64_at(late, 8), offset };
            (Some(Late { was, fork: u64_at(late, 24) }), rest)
        }
        _ => return None,
    };
    let header = ProposalHeader {
        level: AckLevel::from_byte(head[0])?,
        retry: head[1] != 0,
        writes: u32_at(head, 4),
        client,
        sequence: u64_at(head, 24),
        hlc: u64_at(head, 32),
        origin: u64_at(head, 40),
        late,
    };
    let body_len = u32_at(head, 48) as usize;
    let (padded, tail) = rest.split_at_checked(body_len.next_multiple_of(8))?;
    Some((header, &padded[..body_len], tail))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn on_time() -> ProposalHeader {
        ProposalHeader {
            level: AckLevel::Quorum,
            retry: false,
            writes: 2,
            client: [3; 16],
            sequence: 9,
            hlc: 77,
            origin: 5,
            late: None,
        }
    }

    #[test]
    fn a_late_proposal_keeps_what_it_had_beside_others() {
        let on_time = on_time();
        let late = Late { was: Position { term: 4, index: 12, offset: 3 }, fork: 11 };
        let late = ProposalHeader { level: AckLevel::One, retry: true, late: Some(late), ..on_time };
        let mut builder = EntryBuilder::new(6, 0);
        assert_eq!(builder.push(&late, b"late"), 0);
        assert_eq!(builder.push(&on_time, b"on time"), 2);
        let bytes = builder.finish();
        let view = EntryView::parse(8, 20, &bytes).expect("it is well formed");
        let [first, second] = view.proposals() else { panic!("{view:?}") };
        assert_eq!((first.header, first.body), (late, b"late".as_slice()));
        assert_eq!((second.header, second.body), (on_time, b"on time".as_slice()));
        for cut in 0..bytes.len() {
            assert!(EntryView::parse(8, 20, &bytes[..cut]).is_err(), "cut to {cut} bytes");
        }
        let mut unknown = bytes;
        unknown[ENTRY_HEADER_BYTES + 2] = 2;
        assert!(EntryView::parse(8, 20, &unknown).is_err());
    }
}
