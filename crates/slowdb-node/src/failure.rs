//! What a command can end with besides success.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused or failed; the code says why |
//! | 2 | wrong arguments, configuration or input; nothing was sent |
//! | 3 | no node answered, or not in time |
//! | 4 | not found |

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
        let names: Vec<String> = ids.iter().take(5).map(|id| format!("'{id}'")).collect();
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
            (ClientError::BadInput { .. }, _) => USAGE,
            (_, "not_found") => NOT_FOUND,
            (_, "unreachable" | "timeout" | "unavailable" | "unknown_outcome") => UNREACHABLE,
            _ => REFUSED,
        };
        Failure::new(error.code(), error.to_string(), exit)
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
