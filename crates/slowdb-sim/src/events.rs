//! What happened in a run, in order. Checkers read nothing else.
//!
//! The log also keeps a hash over everything that happened, messages included, by which two runs of one seed
//! are compared.

use slowdb_proto::{Became, Code, ConflictPolicy, Position, ReadLevel, WriteLevel};
use slowdb_repl::Part;
use slowdb_server::CatalogProbe;
use std::fmt;
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::Xxh3;

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// A record's id, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u16);

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Writes to ids of one shard; a value of `None` deletes. Values are never used twice.
    Write {
        /// When it is acknowledged.
        level: WriteLevel,
        /// Id and value of each write.
        writes: Vec<(Key, Option<u64>)>,
        /// What must be there for it to take effect; of a single write only.
        condition: Option<Expected>,
    },
    /// Reads ids of one shard.
    Read {
        /// Who may answer.
        level: ReadLevel,
        /// The ids: all of the shard, unless they are got one by one.
        keys: Vec<Key>,
        /// By which request.
        by: By,
        /// The one node that is asked, if it matters.
        at: Option<usize>,
    },
    /// Lists a shard's log of conflicts.
    Conflicts {
        /// The shard.
        shard: u32,
    },
    /// Removes an entry of a shard's log of conflicts.
    Resolve {
        /// Its name.
        entry: Position,
        /// Its record, and what lost.
        lost: (Key, Option<u64>),
        /// What lost is written after all.
        replays: bool,
    },
}

/// A level, and ids with what they become: a value, or nothing.
pub(crate) type Writes<'a> = (WriteLevel, &'a [(Key, Option<u64>)]);

impl Ask {
    /// What it writes, if it takes effect, and at which level.
    pub(crate) fn writes(&self) -> Option<Writes<'_>> {
        match self {
            Ask::Write { level, writes, .. } => Some((*level, writes)),
            Ask::Resolve { lost, replays: true, .. } => {
                Some((WriteLevel::Quorum, std::slice::from_ref(lost)))
            }
            Ask::Resolve { .. } | Ask::Read { .. } | Ask::Conflicts { .. } => None,
        }
    }
}

/// How ids of a shard are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// Each by its name.
    Get,
    /// All records of the shard, in order.
    Scan,
    /// The nearest of the shard, as many as there can be: all of it. The scores tell the values.
    Search,
}

/// What a write depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// There is no record.
    Absent,
    /// The record is this one, by its version.
    Record(Seen),
}

/// A record as a read found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The value written.
    pub value: u64,
    /// Position of the write that made it.
    pub position: Position,
}

/// What became of a write that was overtaken, as the log of conflicts says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conflict {
    /// Position that it had first.
    pub was: Position,
    /// Its record.
    pub key: Key,
    /// What became of it.
    pub became: Became,
    /// Where that was decided.
    pub decided: Position,
    /// What was there then.
    pub met: Option<Position>,
    /// Its hybrid logical time.
    pub hlc: u64,
    /// What lost, if anything did: a value, or that there be none.
    pub loser: Option<Option<u64>>,
}

/// How an operation ended for its client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The write stands as asked.
    Written {
        /// Position of its first write.
        first: Position,
        /// Replicas on which it is known to be durable.
        durable_on: u32,
    },
    /// What the write depended on was not so when it was applied: it changed nothing.
    Unmet {
        /// The version of the record then, if there was one.
        current: Option<Position>,
    },
    /// The write stands at `quorum`, but not at `all`.
    StandsAtQuorum,
    /// What was read.
    Read {
        /// How far the answering replica was applied.
        applied: Position,
        /// One for each id asked for.
        seen: Vec<Option<Seen>>,
        /// What is readable beside them.
        siblings: Vec<(Key, Seen)>,
    },
    /// The log of conflicts.
    Conflicts {
        /// All of its entries.
        entries: Vec<Conflict>,
    },
    /// What a search found.
    Found {
        /// How far the answering replica was applied.
        applied: Position,
        /// The value under each id asked for, if it was among the hits. Hits do not tell positions.
        values: Vec<Option<u64>>,
    },
    /// Nothing happened.
    Refused(Code),
    /// It may have happened, or may happen yet.
    Unknown,
}

/// How a node went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The process was killed; what it wrote is there.
    Kill,
    /// The power went away, and with it any part of what was not synced.
    PowerLoss,
    /// It stopped by itself, since its disk had failed.
    DiskFailed,
    /// It was asked to, and had time to prepare itself.
    Asked,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A client begins an operation.
    Invoke {
        /// The operation.
        op: OpId,
        /// The client.
        client: usize,
        /// The shard.
        shard: u32,
        /// What it asks for.
        ask: Ask,
    },
    /// It sends a request.
    Attempt {
        /// The operation.
        op: OpId,
        /// To this node.
        node: usize,
        /// Whether an earlier one may have arrived.
        retry: bool,
    },
    /// It is answered with an error and goes on trying.
    Setback {
        /// The operation.
        op: OpId,
        /// What the node said.
        code: Code,
    },
    /// The operation is over.
    Return {
        /// The operation.
        op: OpId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A node began to lead a group.
    Leads {
        /// The node.
        node: usize,
        /// The group.
        group: u64,
        /// In this term.
        term: u64,
    },
    /// A node applied entries of a group.
    Applied {
        /// The node.
        node: usize,
        /// The group.
        group: u64,
        /// Up to here.
        position: Position,
        /// Digest of all replicated state after it.
        digest: [u8; 16],
    },
    /// A node started.
    Started {
        /// The node.
        node: usize,
    },
    /// A node is gone.
    Stopped {
        /// The node.
        node: usize,
        /// How.
        how: Stop,
    },
    /// A node has a replica that it did not have.
    Replica {
        /// The node.
        node: usize,
        /// The group.
        group: u64,
        /// The replica.
        replica: u64,
    },
    /// A node has given a replica up.
    ReplicaGone {
        /// The node.
        node: usize,
        /// The group.
        group: u64,
        /// The replica.
        replica: u64,
    },
    /// The disk of a node that was away is lost, and another put in its place.
    Wiped {
        /// The node.
        node: usize,
    },
    /// The operator removes a node as lost: what only it has is given up.
    GivenUp {
        /// The node.
        node: usize,
    },
    /// A replica knows the members of its group, since they were committed.
    Members {
        /// The node that the replica is on.
        node: usize,
        /// The group.
        group: u64,
        /// The replica.
        replica: u64,
        /// The entry that made it so.
        index: u64,
        /// The intent that it was made with.
        intent: u64,
        /// Replica, node and part.
        members: Vec<(u64, String, Part)>,
    },
    /// The catalog as the first node to apply this change of it shows it.
    Catalog {
        /// The node.
        node: usize,
        /// What it holds.
        catalog: Box<CatalogProbe>,
        /// Replicas that the planner would copy, as things stand.
        copies: usize,
        /// What it would do, in words; empty if all is where it should be.
        planned: String,
    },
    /// The operator asks for something.
    Operator {
        /// In words.
        what: String,
    },
    /// The operator is answered, or a node that wants to join.
    Answered {
        /// In words.
        what: String,
    },
    /// Something else was done to the cluster.
    Fault {
        /// In words.
        what: String,
    },
    /// The history of a shard in the end, as its leader has it.
    History {
        /// The shard.
        shard: u32,
        /// Each term with the index at which it begins.
        terms: Vec<(u64, u64)>,
        /// The last index.
        last: u64,
    },
    /// A shard goes by the conflict policy that it was to have.
    Policy {
        /// The shard.
        shard: u32,
        /// The policy.
        policy: ConflictPolicy,
        /// From here on, at the latest.
        from: Position,
    },
    /// How a write was made that a late one met.
    Made {
        /// The shard.
        shard: u32,
        /// Position of the write.
        position: Position,
        /// The level that it asked for.
        level: WriteLevel,
        /// Its hybrid logical time.
        hlc: u64,
    },
    /// No more faults from here on; all nodes are started, all links whole.
    Healed,
    /// All replicas have applied the same, and nothing is under way.
    Quiet,
    /// It did not get quiet in time.
    NotQuiet {
        /// What was still different.
        why: String,
    },
}

/// The events of a run.
#[derive(Default)]
pub struct EventLog {
    events: Vec<(u64, Event)>,
    hash: Buffered,
    verbose: bool,
}

impl EventLog {
    pub(crate) fn new(verbose: bool) -> Self {
        EventLog { verbose, ..EventLog::default() }
    }

    pub(crate) fn push(&mut self, now: u64, event: Event) {
        now.hash(&mut self.hash);
        event.hash(&mut self.hash);
        if self.verbose {
            println!("{}", Line(now, &event));
        }
        self.events.push((now, event));
    }

    /// Takes note of something that no checker needs, such as a message.
    pub(crate) fn note(&mut self, now: u64, what: impl Hash) {
        now.hash(&mut self.hash);
        what.hash(&mut self.hash);
    }

    /// All events with their times in microseconds, in order.
    pub fn events(&self) -> &[(u64, Event)] {
        &self.events
    }

    /// A hash over everything that happened.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// The last events, one a line.
    pub fn tail(&self, lines: usize) -> String {
        let from = self.events.len().saturating_sub(lines);
        self.events[from..].iter().map(|(now, event)| format!("{}\n", Line(*now, event))).collect()
    }
}

/// A hash that takes small pieces together: there are many of them.
#[derive(Default)]
struct Buffered {
    hash: Xxh3,
    bytes: Vec<u8>,
}

impl Hasher for Buffered {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= 4096 {
            self.hash.update(&self.bytes);
            self.bytes.clear();
        }
    }

    fn finish(&self) -> u64 {
        let mut hash = self.hash.clone();
        hash.update(&self.bytes);
        hash.digest()
    }
}

struct Line<'a>(u64, &'a Event);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:>3}.{:06}  ", self.0 / 1_000_000, self.0 % 1_000_000)?;
        match self.1 {
            Event::Invoke { op, client, shard, ask } => {
                write!(f, "op {} client {client} shard {shard}: {ask:?}", op.0)
            }
            Event::Return { op, outcome } => write!(f, "op {} -> {outcome:?}", op.0),
            Event::Applied { node, group, position, digest } => {
                write!(f, "node {node} group {group} applied {position} digest {:02x?}", &digest[..4])
            }
            Event::Members { node, group, replica, index, intent, members } => {
                write!(
                    f,
                    "node {node} group {group} replica {replica}: members at {index}, intent {intent}:"
                )?;
                members.iter().try_for_each(|(replica, node, part)| write!(f, " {replica}@{node}={part:?}"))
            }
            Event::Catalog { node, catalog, copies, .. } => {
                write!(f, "node {node} catalog {}, {copies} copies planned:", catalog.epoch)?;
                for node in &catalog.nodes {
                    let down = if node.down { "/down" } else { "" };
                    let leaving = if node.leaving { "/leaving" } else { "" };
                    write!(f, " {}={:?}{down}{leaving}", node.id, node.state)?;
                }
                for spec in catalog.groups.iter().filter(|spec| !spec.is_settled()) {
                    write!(f, "; group {} led by {}", spec.group, spec.leader)?;
                    for it in &spec.replicas {
                        write!(f, " {}@{}={:?}/{:?}", it.replica, it.node, it.wanted, it.standing)?;
                    }
                }
                Ok(())
            }
            other => write!(f, "{other:?}"),
        }
    }
}
