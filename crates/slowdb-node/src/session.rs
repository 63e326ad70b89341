//! `--session`: what earlier commands wrote and read, so that this one sees at least that.

use crate::failure::Failure;
use slowdb_client::{Collection, Session};
use std::path::{Path, PathBuf};

/// A session that goes on with the next command.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    session: Option<Session>,
    file: Option<PathBuf>,
}

impl Carried {
    /// From `new`, a session's text, or the name of a file that holds one or is to. What is neither a session nor a file
    /// that is there, and has no `/`, may be a session that was damaged on the way: to begin a new one with it would read
    /// less than was seen.
    pub(crate) fn open(argument: Option<&str>) -> Result<Self, Failure> {
        let Some(argument) = argument else { return Ok(Carried::default()) };
        let damaged = match argument.parse() {
            Ok(session) => return Ok(Carried { session: Some(session), file: None }),
            Err(error) => error,
        };
        let file = PathBuf::from(argument);
        let session = match std::fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().map_err(|error| {
                Failure::bad_file(format!("{}: {error}. Remove it to begin another session", file.display()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && argument.contains('/') => {
                Session::new()
            }
            Err(error) if !argument.contains('/') => {
                let message = format!(
                    "--session: {damaged}; there is no such file either ({error}). To begin a session in a new file, write \
                     it as a path: ./NAME"
                );
                return Err(Failure::usage(message));
            }
            Err(error) => return Err(unusable(&file, &error)),
        };
        Ok(Carried { session: Some(session), file: Some(file) })
    }

    /// The collection, in this session.
    pub(crate) fn enter(&self, collection: &Collection) -> Result<Collection, Failure> {
        match &self.session {
            Some(session) => Ok(collection.in_session(session)?),
            None => Ok(collection.clone()),
        }
    }

    /// Brings the file up to date. Gives what to print.
    pub(crate) fn save(&self) -> Result<Option<String>, Failure> {
        let Some(text) = self.session.as_ref().map(Session::to_string) else { return Ok(None) };
        if let Some(file) = &self.file {
            // Under another name first: whoever reads it meanwhile sees the old one or the new one.
            let mut new = file.clone().into_os_string();
            new.push(format!(".{}", std::process::id()));
            std::fs::write(&new, format!("{text}\n"))
                .and_then(|()| std::fs::rename(&new, file))
                .map_err(|error| unusable(file, &error))?;
        }
        Ok(Some(text))
    }
}

fn unusable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::bad_file(format!("cannot keep the session in {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_text_or_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("session").to_string_lossy().into_owned();
        assert!(Carried::open(None).expect("none").session.is_none());
        assert_eq!(Carried::open(Some("new")).expect("a new one").save().expect("saved"), Some("new".into()));
        let kept = Carried::open(Some(&file)).expect("a file that is to be");
        assert_eq!(kept.save().expect("saved"), Some("new".into()));
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "new\n");
        for damaged in ["News", "session", "00112233445566778899aabbccddeeff.AQID", &"7".repeat(500)] {
            let failure = Carried::open(Some(damaged)).expect_err("no session, and no file");
            assert!(failure.exit == 2 && failure.message.contains("is no session"), "{}", failure.message);
        }
        std::fs::write(&file, "what is this").expect("written");
        assert_eq!(Carried::open(Some(&file)).expect_err("no session").exit, 2);
    }
}
