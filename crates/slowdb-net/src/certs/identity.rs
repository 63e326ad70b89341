//! Who this process is, loaded from a directory of certificates and checked before first use.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{CA_CERT, CLIENT_NAME, CertError, NODE_NAME};

/// What a certificate entitles its holder to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A node of the cluster: may accept connections, and open them as a peer or a client.
    Node,
    /// A client: may open client connections only.
    Client,
}

impl Role {
    pub(super) fn cert_file(self) -> String {
        format!("{self}.pem")
    }

    pub(super) fn key_file(self) -> String {
        format!("{self}.key")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Client => "client",
        })
    }
}

/// A certificate with its key, and the authority that peers are verified against.
///
/// Cheap to clone. The key never shows in `Debug`.
#[derive(Clone)]
pub struct Identity {
    role: Role,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads `ca.pem` and the certificate and key of `role` from `dir`.
    ///
    /// Checked here, so that a mistake shows at start and not at the first peer: files present and parseable, key
    /// private to its owner and belonging to the certificate, certificate signed by the authority, valid now, and
    /// for this role.
    ///
    /// # Errors
    /// A [`CertError`] naming the file and what to do.
    pub fn load(dir: &Path, role: Role) -> Result<Self, CertError> {
        let (ca, cert, key_path) = (dir.join(CA_CERT), dir.join(role.cert_file()), dir.join(role.key_file()));
        let authorities = read_certificates(&ca)?;
        let chain = read_certificates(&cert)?;
        let key_pem = read(&key_path)?;
        refuse_mode(&key_path, 0o077, 0o600)?;
        // Whoever can write to the directory can put a key of theirs there.
        refuse_mode(dir, 0o022, 0o700)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|error| invalid(&key_path, format!("no private key: {error}")))?;

        let mut roots = RootCertStore::empty();
        for authority in authorities {
            refuse_outdated(&ca, &authority)?;
            roots.add(authority).map_err(|error| invalid(&ca, error.to_string()))?;
        }
        let identity = Self { role, chain, key: Arc::new(key), roots: Arc::new(roots) };
        identity.check(&ca, &cert, &key_path)?;
        Ok(identity)
    }

    /// The role of this identity.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The private key's bytes, to derive other secrets from.
    pub(crate) fn private_key(&self) -> &[u8] {
        self.key.secret_der()
    }

    fn check(&self, ca: &Path, cert: &Path, key: &Path) -> Result<(), CertError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider()).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    CertError::KeyMismatch { cert: cert.into(), key: key.into() }
                }
                other => invalid(key, other.to_string()),
            }
        })?;
        let leaf = self.chain.first().ok_or_else(|| invalid(cert, "no certificate".to_owned()))?;
        self.client_verifier()
            .map_err(|problem| invalid(ca, problem))?
            .verify_client_cert(leaf, &self.chain[1..], UnixTime::now())
            .map_err(|error| match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ) => CertError::Expired { path: cert.into() },
                rustls::Error::InvalidCertificate(
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
                ) => CertError::NotYetValid { path: cert.into() },
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => CertError::OtherAuthority { cert: cert.into(), ca: ca.into() },
                other => invalid(cert, other.to_string()),
            })?;
        let wrong = |problem| CertError::WrongRole { path: cert.into(), wanted: self.role, problem };
        match role_of(leaf) {
            Ok(role) if role == self.role => Ok(()),
            Ok(role) => Err(wrong(format!("it is for the role `{role}`"))),
            Err(problem) => Err(wrong(problem)),
        }
    }

    fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::new(provider()))
            .build()
            .map_err(|error| error.to_string())
    }

    /// TLS for the accepting side: demands a certificate of this authority.
    pub(crate) fn server_tls(&self, alpns: Vec<Vec<u8>>) -> Result<rustls::ServerConfig, String> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(self.client_verifier()?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| error.to_string())?;
        tls.alpn_protocols = alpns;
        // Resumption would let a certificate live on in tickets; connections here are few and long.
        tls.send_tls13_tickets = 0;
        tls.max_early_data_size = 0;
        Ok(tls)
    }

    /// TLS for the connecting side: presents our certificate, trusts nodes of this authority only.
    pub(crate) fn client_tls(&self, alpn: Vec<u8>) -> Result<rustls::ClientConfig, String> {
        let provider = Arc::new(provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&provider))
                .build()
                .map_err(|error| error.to_string())?;
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(verifier);
        let mut tls = builder
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| error.to_string())?;
        tls.alpn_protocols = vec![alpn];
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(tls)
    }
}

/// Misfits for the tests of those who must refuse them.
#[cfg(test)]
impl Identity {
    /// The same certificate, but it trusts the authority of `other`.
    pub(crate) fn trusting(mut self, other: &Self) -> Self {
        self.roots = Arc::clone(&other.roots);
        self
    }

    /// TLS that trusts the same authority but has no certificate to show.
    pub(crate) fn tls_without_certificate(&self, alpn: &str) -> rustls::ClientConfig {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.into()];
        tls
    }
}

/// AES-128 first: as safe here as AES-256, and cheaper per byte.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    }
}

/// Reads the role out of a certificate that has been verified.
pub(crate) fn role_of(cert: &CertificateDer<'_>) -> Result<Role, String> {
    let (_, parsed) =
        X509Certificate::from_der(cert).map_err(|error| format!("cannot be parsed: {error}"))?;
    let mut roles = Vec::new();
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(NODE_NAME) => roles.push(Role::Node),
                GeneralName::DNSName(CLIENT_NAME) => roles.push(Role::Client),
                _ => {}
            }
        }
    }
    match roles[..] {
        [role] => Ok(role),
        [] => Err(format!("it names neither `{NODE_NAME}` nor `{CLIENT_NAME}`")),
        _ => Err("it names more than one role".to_owned()),
    }
}

fn invalid(path: &Path, problem: String) -> CertError {
    CertError::Invalid { path: path.into(), problem }
}

fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CertError::Missing { path: path.into() },
        _ => CertError::io("read", path)(error),
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let pem = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(invalid(path, "no certificate in it".to_owned()));
    }
    for certificate in &certificates {
        X509Certificate::from_der(certificate).map_err(|error| invalid(path, error.to_string()))?;
    }
    Ok(certificates)
}

fn refuse_mode(path: &Path, forbidden: u32, wanted: u32) -> Result<(), CertError> {
    let mode = fs::metadata(path).map_err(CertError::io("look at", path))?.permissions().mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(CertError::TooOpen { path: path.into(), mode, wanted });
    }
    Ok(())
}

/// The verifier looks at the dates of the chain but takes those of the authority on trust.
fn refuse_outdated(path: &Path, cert: &CertificateDer<'_>) -> Result<(), CertError> {
    let (_, parsed) = X509Certificate::from_der(cert).map_err(|error| invalid(path, error.to_string()))?;
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    if parsed.validity().not_after.timestamp() < now {
        return Err(CertError::Expired { path: path.into() });
    }
    if parsed.validity().not_before.timestamp() > now {
        return Err(CertError::NotYetValid { path: path.into() });
    }
    Ok(())
}
