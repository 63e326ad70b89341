//! What can be wrong with a directory of certificates.

use std::io;
use std::path::PathBuf;

/// Why certificates could not be made or loaded. Every message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// The directory to create already holds something.
    #[error(
        "{dir} already exists and is not empty; certificates are never overwritten: \
         use what is there, or choose another directory"
    )]
    Exists {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// A file of the set is not there.
    #[error(
        "{path} is missing; make a set with `slowdb-node certs create DIR`, or copy this cluster's set here"
    )]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A private key can be read, or a directory changed, by others.
    #[error("{path} has mode {mode:04o}, which lets others in; run `chmod {wanted:o} {path}`")]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits to set.
        wanted: u32,
    },
    /// A file could not be parsed.
    #[error("{path} is not a valid PEM file of what it should hold: {problem}; restore it or make a new set")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        problem: String,
    },
    /// The private key does not belong to the certificate.
    #[error("the key {key} does not belong to the certificate {cert}; copy both from the same set")]
    KeyMismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The certificate was signed by another authority than the one beside it.
    #[error("{cert} was not signed by the authority in {ca}; copy both from the same set")]
    OtherAuthority {
        /// The certificate.
        cert: PathBuf,
        /// The authority.
        ca: PathBuf,
    },
    /// The certificate is past its end, or the clock of this machine is wrong.
    #[error(
        "{path} has expired, or this machine's clock is ahead; make a new set with `slowdb-node certs create DIR`"
    )]
    Expired {
        /// The certificate.
        path: PathBuf,
    },
    /// The certificate is not valid yet.
    #[error("{path} is not valid yet: check this machine's clock")]
    NotYetValid {
        /// The certificate.
        path: PathBuf,
    },
    /// The certificate is for something else.
    #[error("{path} is not a certificate for the role `{wanted}`: {problem}")]
    WrongRole {
        /// The certificate.
        path: PathBuf,
        /// The role that was asked for.
        wanted: super::Role,
        /// What is wrong.
        problem: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Keys or certificates could not be generated.
    #[error("cannot generate certificates: {0}")]
    Generate(String),
}

impl CertError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
