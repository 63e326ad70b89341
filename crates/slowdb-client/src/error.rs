//! Errors, by what the caller can do about them.

use crate::conflicts::ConflictName;
use slowdb_proto::{ClusterId, Code, ErrorReply, OpsError, Position};

/// Why a seed or node could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// The address that was tried.
    pub address: String,
    /// What happened.
    pub reason: String,
}

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A node refused the request, for a reason that trying again does not mend.
    #[error("{}", .0.message)]
    Refused(ErrorReply),
    /// The input was refused before anything was sent. Correct it.
    #[error("{message}")]
    BadInput {
        /// In the words of the protocol.
        code: Code,
        /// What is wrong, with which value.
        message: String,
    },
    /// The condition of a write did not hold when it was applied, and nothing was changed. Read the record, and decide
    /// again.
    #[error("the condition on '{id}' does not hold: {}", there_is(.current))]
    ConditionNotMet {
        /// The record's id.
        id: String,
        /// Its version at that moment; `None`: there was no record.
        current: Option<Position>,
    },
    /// There is no such conflict: it may have been resolved meanwhile. Nothing was changed.
    #[error("there is no conflict {name}; it may have been resolved already")]
    NoConflict {
        /// What it was called.
        name: ConflictName,
    },
    /// In this conflict nothing lost, so that there is nothing to write. Nothing was changed.
    #[error("in conflict {name} nothing lost: there is nothing to replay; it can be discarded")]
    NothingLost {
        /// What it is called.
        name: ConflictName,
    },
    /// The record was written to, or deleted, since this conflict was decided, and a replay would undo that. Nothing was
    /// changed.
    #[error(
        "'{id}' was written to at {since}, after conflict {name} was decided: to replace that too, replay it anyway"
    )]
    WrittenSince {
        /// What the conflict is called.
        name: ConflictName,
        /// The record's id.
        id: String,
        /// Position of that write.
        since: Position,
    },
    /// The cluster has no such collection.
    #[error("no collection is called '{name}'; the cluster has {known}")]
    UnknownCollection {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The collection was dropped while the call was under way, and there is another one of that name. What the call did,
    /// if anything, it did to the one that is gone. Begin anew, if the new one is meant.
    #[error("the collection '{name}' was dropped meanwhile, and there is another one of that name")]
    Replaced {
        /// The name of both.
        name: String,
    },
    /// None of the addresses answered. Check them, and whether the nodes run.
    #[error("no node could be reached: {}", list(.tried))]
    NoNodeReachable {
        /// Each address with what happened.
        tried: Vec<Unreached>,
    },
    /// Nodes were reached, but the certificates did not fit. Use those of this cluster.
    #[error("certificates refused: {reason}; use those of this very cluster")]
    CertificateRefused {
        /// The address that was tried.
        address: String,
        /// What happened.
        reason: String,
    },
    /// A node answered for another cluster than the one this client belongs to.
    #[error("{address} is a node of cluster {got}, not of {wanted}")]
    WrongCluster {
        /// The node's address.
        address: String,
        /// The cluster that is meant.
        wanted: ClusterId,
        /// The cluster that answered.
        got: ClusterId,
    },
    /// The time is up, and nothing was changed. Try again, or allow more time.
    #[error("{what}: no answer within {waited_ms} ms, and nothing was changed{}", because(.last))]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long it was tried.
        waited_ms: u64,
        /// What went wrong last.
        last: Option<String>,
    },
    /// The time is up, and the write may or may not have taken effect. Writing the same again is safe if
    /// nobody else writes to the same ids.
    #[error("{what}: no acknowledgement within {waited_ms} ms; it may or may not have taken effect{}", because(.last))]
    OutcomeUnknown {
        /// What was asked.
        what: String,
        /// How long it was tried.
        waited_ms: u64,
        /// What went wrong last.
        last: Option<String>,
    },
    /// A shard could not be answered for in time. The call gives no partial answer.
    #[error("shard {shard} of '{collection}' gave no answer within {waited_ms} ms{}", because(.last))]
    ShardUnavailable {
        /// Its collection.
        collection: String,
        /// Its number.
        shard: u32,
        /// How long it was tried.
        waited_ms: u64,
        /// What went wrong last.
        last: Option<String>,
    },
    /// Some batches of a bulk write were acknowledged, and one was not.
    #[error("{}, then: {source}", so_far(*written, *at_quorum))]
    Partial {
        /// Records acknowledged.
        written: u64,
        /// Records besides that stand at quorum, as their nodes said, but have not reached the level that was asked for.
        at_quorum: u64,
        /// Why the rest was not.
        source: Box<ClientError>,
    },
    /// A node answered with something that makes no sense: probably another version.
    #[error("{address} answered with {what}; do client and node have the same version?")]
    BadReply {
        /// The node's address.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// Something on this machine failed.
    #[error("{message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

impl ClientError {
    /// Whether it says that one shard cannot be read, and nothing of others.
    pub(crate) fn is_of_shard(&self) -> bool {
        match self {
            ClientError::ShardUnavailable { .. } => true,
            ClientError::Refused(reply) => reply.code == Code::Overtaken || reply.code.is_retryable(),
            _ => false,
        }
    }

    /// The error's code as it is spelt in JSON: one of the protocol's, or `unreachable`,
    /// `certificate_refused`, `bad_reply`, `internal`.
    pub fn code(&self) -> &'static str {
        match self {
            ClientError::Refused(reply) => reply.code.as_str(),
            ClientError::BadInput { code, .. } => code.as_str(),
            ClientError::NoConflict { .. } => Code::NotFound.as_str(),
            ClientError::NothingLost { .. } => Code::Refused.as_str(),
            ClientError::ConditionNotMet { .. } | ClientError::WrittenSince { .. } => {
                Code::ConditionNotMet.as_str()
            }
            ClientError::UnknownCollection { .. } => Code::UnknownCollection.as_str(),
            ClientError::Replaced { .. } => Code::StaleRoute.as_str(),
            ClientError::NoNodeReachable { .. } => "unreachable",
            ClientError::CertificateRefused { .. } => "certificate_refused",
            ClientError::WrongCluster { .. } => Code::WrongCluster.as_str(),
            ClientError::TimedOut { .. } => Code::Timeout.as_str(),
            ClientError::OutcomeUnknown { .. } => Code::UnknownOutcome.as_str(),
            ClientError::ShardUnavailable { .. } => Code::Unavailable.as_str(),
            ClientError::Partial { source, .. } => source.code(),
            ClientError::BadReply { .. } => "bad_reply",
            ClientError::Internal { .. } => "internal",
        }
    }
}

impl From<OpsError> for ClientError {
    fn from(error: OpsError) -> Self {
        let code = match &error {
            OpsError::IdEmpty { .. } | OpsError::IdTooLong { .. } | OpsError::IdNotUtf8 { .. } => Code::BadId,
            OpsError::WrongDimension { .. } => Code::WrongDimension,
            OpsError::NotFinite { .. } => Code::NotFinite,
            OpsError::PayloadTooLarge { .. } | OpsError::TooManyWrites | OpsError::TooManyBytes { .. } => {
                Code::TooLarge
            }
            OpsError::Empty | OpsError::Malformed { .. } => Code::BadRequest,
        };
        ClientError::BadInput { code, message: error.to_string() }
    }
}

fn list(tried: &[Unreached]) -> String {
    let all: Vec<String> = tried.iter().map(|t| format!("{}: {}", t.address, t.reason)).collect();
    all.join("; ")
}

fn so_far(written: u64, at_quorum: u64) -> String {
    match at_quorum {
        0 => format!("{written} records were written"),
        _ => format!(
            "{written} records were written at the level asked for, and {at_quorum} more stand at quorum but have not \
             reached it"
        ),
    }
}

fn there_is(current: &Option<Position>) -> String {
    current.map_or("there is no record".to_owned(), |version| format!("its version is {version}"))
}

fn because(last: &Option<String>) -> String {
    last.as_ref().map(|reason| format!(" (last: {reason})")).unwrap_or_default()
}
