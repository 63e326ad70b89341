//! Makes a set of certificates, at once or not at all.
//!
//! The set is written to a private directory beside the target and renamed into place: whoever looks sees nothing
//! or all of it, and of two processes that start at once one wins and the other uses the winner's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::{CA_CERT, CA_KEY, CLIENT_NAME, CertError, Identity, NODE_NAME, Role};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const VALID_FOR: Duration = Duration::from_secs(3653 * 24 * 60 * 60);

/// Makes an authority and one certificate each for nodes and clients in `dir`, which must not exist or be empty.
///
/// Writes `ca.pem`, `ca.key`, `node.pem`, `node.key`, `client.pem`, `client.key`; the directory gets mode 0700 and
/// keys 0600 from the start. Parents are created as needed. The set appears in one rename, synced.
///
/// # Errors
/// [`CertError::Exists`] when something is there already, [`CertError::Io`] when the file system refuses.
pub fn create(dir: &Path) -> Result<(), CertError> {
    if !absent_or_empty(dir)? {
        return Err(CertError::Exists { dir: dir.into() });
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(CertError::io("create directory", parent))?;

    let staged = Staged::new(parent)?;
    for (name, content) in generate()? {
        write_private(&staged.0.join(name), content.as_bytes())?;
    }
    sync_dir(&staged.0)?;
    // Renaming over an empty directory replaces it, over one with content fails: exactly one of several wins.
    match fs::rename(&staged.0, dir) {
        Ok(()) => sync_dir(parent),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            Err(CertError::Exists { dir: dir.into() })
        }
        Err(error) => Err(CertError::io("rename a new set to", dir)(error)),
    }
}

/// Loads the identity for `role` from `dir`, first making a set when nothing is there.
///
/// Processes that start at once end up with the same set. A directory that holds something, even an incomplete
/// set, is never written to.
///
/// # Errors
/// As [`create`] and [`Identity::load`].
pub fn load_or_create(dir: &Path, role: Role) -> Result<Identity, CertError> {
    if absent_or_empty(dir)? {
        match create(dir) {
            // Another process was faster: its set is as good as ours.
            Ok(()) | Err(CertError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Identity::load(dir, role)
}

fn absent_or_empty(dir: &Path) -> Result<bool, CertError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(CertError::io("read directory", dir)(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(CertError::io("read directory", dir)(error)),
    }
}

/// A directory that is removed again unless it was renamed away.
struct Staged(PathBuf);

impl Staged {
    fn new(parent: &Path) -> Result<Self, CertError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // Process id and counter separate the processes and threads of one machine; a left-over of a process that
        // died (or another machine's on a shared file system) is stepped over.
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!(".slowdb-certs-{}-{count}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CertError::io("create directory", path)(error)),
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After the rename there is nothing here; on the way out of an error there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_private(path: &Path, content: &[u8]) -> Result<(), CertError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(CertError::io("create", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(CertError::io("write", path))
}

fn sync_dir(dir: &Path) -> Result<(), CertError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(CertError::io("sync directory", dir))
}

fn generate() -> Result<Vec<(String, String)>, CertError> {
    let fail = |error: rcgen::Error| CertError::Generate(error.to_string());
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let mut ca = params("SlowDB cluster authority", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_cert = ca.self_signed(&ca_key).map_err(fail)?;
    let issuer = Issuer::from_params(&ca, &ca_key);

    let mut files = vec![(CA_CERT.to_owned(), ca_cert.pem()), (CA_KEY.to_owned(), ca_key.serialize_pem())];
    for role in [Role::Node, Role::Client] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let (name, usages) = match role {
            Role::Node => {
                (NODE_NAME, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
            }
            Role::Client => (CLIENT_NAME, vec![ExtendedKeyUsagePurpose::ClientAuth]),
        };
        let mut leaf = params(&format!("SlowDB {role}"), &[name])?;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = usages;
        let cert = leaf.signed_by(&key, &issuer).map_err(fail)?;
        files.push((role.cert_file(), cert.pem()));
        files.push((role.key_file(), key.serialize_pem()));
    }
    Ok(files)
}

/// Valid from yesterday, so that a machine whose clock is a little behind accepts it.
fn params(common_name: &str, names: &[&str]) -> Result<CertificateParams, CertError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(|error| CertError::Generate(error.to_string()))?;
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| CertError::Generate("this machine's clock is before 1970".to_owned()))?;
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(DAY);
    params.not_after = epoch + since_epoch + VALID_FOR;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
