//! Every way a set of certificates can be wrong, and the race to make one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use tempfile::TempDir;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn new_set() -> (TempDir, std::path::PathBuf) {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("deep/er/certs");
    create(&dir).unwrap();
    (temp, dir)
}

#[test]
fn a_new_set_is_private_complete_and_loads() {
    let (_temp, dir) = new_set();
    let mut names: Vec<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["ca.key", "ca.pem", "client.key", "client.pem", "node.key", "node.pem"]);
    assert_eq!(mode(&dir), 0o700);
    for name in names {
        assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1, "nothing is left beside the set");
    for role in [Role::Node, Role::Client] {
        let identity = Identity::load(&dir, role).unwrap();
        assert_eq!(identity.role(), role);
        assert!(!format!("{identity:?}").contains("key"));
    }
}

#[test]
fn nothing_is_overwritten() {
    let (_temp, dir) = new_set();
    let before = fs::read(dir.join("ca.pem")).unwrap();
    assert!(matches!(create(&dir), Err(CertError::Exists { .. })));
    load_or_create(&dir, Role::Node).unwrap();
    assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), before);

    let other = TempDir::new().unwrap();
    fs::write(other.path().join("notes.txt"), "mine").unwrap();
    assert!(matches!(create(other.path()), Err(CertError::Exists { .. })));
    assert!(matches!(load_or_create(other.path(), Role::Node), Err(CertError::Missing { .. })));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_directory_is_filled() {
    let temp = TempDir::new().unwrap();
    load_or_create(temp.path(), Role::Client).unwrap();
    assert_eq!(mode(temp.path()), 0o700);
}

#[test]
fn whoever_starts_at_once_ends_with_one_set() {
    for _ in 0..5 {
        let temp = TempDir::new().unwrap();
        let dir = temp.path().join("certs");
        let start = Barrier::new(8);
        let keys: Vec<Vec<u8>> = thread::scope(|scope| {
            let starters: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        load_or_create(&dir, Role::Node).unwrap();
                        fs::read(dir.join("node.key")).unwrap()
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "losers leave nothing behind");
    }
}

#[test]
fn missing_files_are_named_with_what_to_do() {
    for (name, role) in [("ca.pem", Role::Node), ("node.pem", Role::Node), ("client.key", Role::Client)] {
        let (_temp, dir) = new_set();
        fs::remove_file(dir.join(name)).unwrap();
        let error = Identity::load(&dir, role).unwrap_err();
        assert!(matches!(&error, CertError::Missing { path } if path.ends_with(name)), "{error}");
        assert!(error.to_string().contains("slowdb-node certs create"), "{error}");
    }
    // A client's machine has only what a client needs.
    let (_temp, dir) = new_set();
    for name in ["ca.key", "node.pem", "node.key"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    Identity::load(&dir, Role::Client).unwrap();
}

#[test]
fn open_permissions_are_refused_with_the_fix() {
    let (_temp, dir) = new_set();
    let key = dir.join("node.key");
    for open in [0o640, 0o604, 0o660] {
        set_mode(&key, open);
        let error = Identity::load(&dir, Role::Node).unwrap_err();
        assert!(matches!(error, CertError::TooOpen { mode, .. } if mode == open), "{error}");
        assert!(error.to_string().contains(&format!("chmod 600 {}", key.display())), "{error}");
    }
    set_mode(&key, 0o400);
    Identity::load(&dir, Role::Node).unwrap();
    set_mode(&dir, 0o770);
    assert!(matches!(Identity::load(&dir, Role::Node), Err(CertError::TooOpen { .. })));
}

#[test]
fn parts_of_two_sets_do_not_mix() {
    let ((_a, a), (_b, b)) = (new_set(), new_set());
    fs::copy(b.join("node.key"), a.join("node.key")).unwrap();
    let error = Identity::load(&a, Role::Node).unwrap_err();
    assert!(matches!(error, CertError::KeyMismatch { .. }), "{error}");
    fs::copy(b.join("node.pem"), a.join("node.pem")).unwrap();
    let error = Identity::load(&a, Role::Node).unwrap_err();
    assert!(matches!(error, CertError::OtherAuthority { .. }), "{error}");
    fs::copy(b.join("ca.pem"), a.join("ca.pem")).unwrap();
    Identity::load(&a, Role::Node).unwrap();
}

#[test]
fn a_client_cannot_pose_as_a_node() {
    let (_temp, dir) = new_set();
    fs::copy(dir.join("client.pem"), dir.join("node.pem")).unwrap();
    fs::copy(dir.join("client.key"), dir.join("node.key")).unwrap();
    let error = Identity::load(&dir, Role::Node).unwrap_err();
    assert!(matches!(error, CertError::WrongRole { .. }), "{error}");
}

#[test]
fn rubbish_is_named() {
    for (name, content) in [
        ("ca.pem", &b""[..]),
        ("node.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("node.pem", b"\xff\xfe\0"),
        ("node.key", b"not a key"),
        ("node.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ] {
        let (_temp, dir) = new_set();
        fs::write(dir.join(name), content).unwrap();
        let error = Identity::load(&dir, Role::Node).unwrap_err();
        assert!(matches!(&error, CertError::Invalid { path, .. } if path.ends_with(name)), "{name}: {error}");
    }
}

/// A set of one more authority, with a node certificate of these years.
fn reissue(dir: &Path, ca_until: i32, from: i32, until: i32) {
    let key = |name| rcgen::KeyPair::from_pem(&fs::read_to_string(dir.join(name)).unwrap()).unwrap();
    let (ca_key, node_key) = (key("ca.key"), key("node.key"));
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.not_after = rcgen::date_time_ymd(ca_until, 1, 1);
    fs::write(dir.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let mut node = rcgen::CertificateParams::new(vec![NODE_NAME.to_owned()]).unwrap();
    node.not_before = rcgen::date_time_ymd(from, 1, 1);
    node.not_after = rcgen::date_time_ymd(until, 1, 1);
    node.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    fs::write(dir.join("node.pem"), node.signed_by(&node_key, &issuer).unwrap().pem()).unwrap();
}

#[test]
fn dates_are_checked() {
    let (_temp, dir) = new_set();
    reissue(&dir, 4000, 2020, 4000);
    Identity::load(&dir, Role::Node).unwrap();
    reissue(&dir, 4000, 2020, 2021);
    let error = Identity::load(&dir, Role::Node).unwrap_err();
    assert!(matches!(&error, CertError::Expired { path } if path.ends_with("node.pem")), "{error}");
    reissue(&dir, 4000, 3999, 4000);
    assert!(matches!(Identity::load(&dir, Role::Node), Err(CertError::NotYetValid { .. })));
    reissue(&dir, 2021, 2020, 4000);
    let error = Identity::load(&dir, Role::Node).unwrap_err();
    assert!(matches!(&error, CertError::Expired { path } if path.ends_with("ca.pem")), "{error}");
}
