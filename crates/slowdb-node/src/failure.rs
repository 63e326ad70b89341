//! What a command can end with besides success.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused or failed; the code says why |
//! | 2 | wrong arguments, configuration or input; nothing was sent |
//! | 3 | no node answered, or not in time |
//! | 4 | not found: no such record, collection, shard, node or conflict |

use crate::output::visible;
use slowdb_client::vectors::FileError;
use slowdb_client::{CertError, ClientError};

/// A failure: a code for programs, a message for people, an exit code for scripts.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) exit: u8,
}

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NOT_FOUND: u8 = 4;

const READER_GONE: &str = "reader_gone";

impl Failure {
    fn new(code: &str, message: impl Into<String>, exit: u8) -> Self {
        Failure { code: code.to_owned(), message: message.into(), exit }
    }

    /// Arguments or configuration make no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::new("usage", message, USAGE)
    }

    /// A file or stdin holds something that cannot be used.
    pub(crate) fn bad_file(message: impl Into<String>) -> Self {
        Failure::new("bad_file", message, USAGE)
    }

    /// Input is bad in the protocol's own words, such as `not_finite`.
    pub(crate) fn bad_input(code: &str, message: impl Into<String>) -> Self {
        Failure::new(code, message, USAGE)
    }

    /// No records have these ids.
    pub(crate) fn not_found(ids: &[&str]) -> Self {
        let names: Vec<String> = ids.iter().take(5).map(|id| format!("'{}'", visible(id))).collect();
        let more =
            if ids.len() > names.len() { format!(", … ({} in all)", ids.len()) } else { String::new() };
        let message = format!("there is no record {}{more}", names.join(", "));
        Failure::new("not_found", message, NOT_FOUND)
    }

    /// The node could not start, or had to stop.
    pub(crate) fn node(message: impl Into<String>) -> Self {
        Failure::new("node_failed", message, REFUSED)
    }

    /// The node cannot start where it was told to.
    pub(crate) fn refused(code: &str, message: impl Into<String>) -> Self {
        Failure::new(code, message, REFUSED)
    }

    /// What was waited for did not come in time.
    pub(crate) fn too_late(message: impl Into<String>) -> Self {
        Failure::new("timeout", message, UNREACHABLE)
    }

    /// Whether it may be different when it is tried again.
    pub(crate) fn may_pass(&self) -> bool {
        self.exit == UNREACHABLE
    }

    /// Nobody reads stdout any more.
    pub(crate) fn reader_gone() -> Self {
        Failure::new(READER_GONE, "", REFUSED)
    }

    /// Whether there is nobody to tell.
    pub(crate) fn is_silent(&self) -> bool {
        self.code == READER_GONE
    }

    /// Something on this machine failed.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Failure::new("internal", message, REFUSED)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match (&error, error.code()) {
            (_, "not_found" | "unknown_collection") => NOT_FOUND,
            (ClientError::BadInput { .. }, _) => USAGE,
            (_, "unreachable" | "timeout" | "unavailable" | "unknown_outcome") => UNREACHABLE,
            _ => REFUSED,
        };
        let is_late = matches!(
            error,
            ClientError::TimedOut { .. }
                | ClientError::OutcomeUnknown { .. }
                | ClientError::ShardUnavailable { .. }
        );
        let longer = if is_late { "; --timeout sets how long it may take" } else { "" };
        Failure::new(error.code(), format!("{error}{longer}"), exit)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::NotFinite { .. } => "not_finite",
            _ => "bad_file",
        };
        Failure::bad_input(code, error.to_string())
    }
}

impl From<CertError> for Failure {
    fn from(error: CertError) -> Self {
        Failure::new("bad_certificates", error.to_string(), USAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowdb_proto::Code;

    #[test]
    fn what_is_not_there_has_an_exit_code_of_its_own() {
        let unknown = ClientError::UnknownCollection { name: "words".into(), known: "'default'".into() };
        let no_shard = ClientError::BadInput { code: Code::NotFound, message: "there is no shard 9".into() };
        let bad = ClientError::BadInput { code: Code::NotFinite, message: "NaN".into() };
        for (error, exit) in [(unknown, 4), (no_shard, 4), (bad, 2)] {
            assert_eq!(Failure::from(error).exit, exit);
        }
    }

    #[test]
    fn what_took_too_long_says_how_to_wait_longer() {
        let late = ClientError::ShardUnavailable {
            collection: "default".into(),
            shard: 3,
            waited_ms: 1_000,
            last: None,
        };
        let failure = Failure::from(late);
        assert!(failure.exit == 3 && failure.message.contains("--timeout"), "{}", failure.message);
    }
}
