//! Payloads on the command line: JSON. Other programs may store any bytes; those are shown as hexadecimal digits.

use crate::failure::Failure;
use serde::Serialize;
use serde_json::value::RawValue;
use slowdb_proto::limits::PAYLOAD_BYTES_MAX;

/// A payload as it is printed.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum PayloadView {
    /// JSON, as it was stored.
    Json(Box<RawValue>),
    /// Anything else.
    Bytes {
        /// In hexadecimal digits.
        hex: String,
    },
}

impl PayloadView {
    /// `None` if there is none.
    pub(crate) fn of(payload: &[u8]) -> Option<PayloadView> {
        if payload.is_empty() {
            return None;
        }
        let json = std::str::from_utf8(payload).ok().and_then(|text| {
            // Line ends in JSON are between its parts only, where a blank does as well: what is printed is one line.
            RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok()
        });
        let hex = || payload.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(json.map_or_else(|| PayloadView::Bytes { hex: hex() }, PayloadView::Json))
    }
}

impl std::fmt::Display for PayloadView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PayloadView::Json(json) => f.write_str(json.get()),
            PayloadView::Bytes { hex } => write!(f, "hex {hex}"),
        }
    }
}

/// What is stored of a payload that was given as JSON: the text as it is, without blanks around it.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, Failure> {
    let text = text.trim();
    if let Err(error) = serde_json::from_str::<&RawValue>(text) {
        return Err(Failure::bad_input("bad_payload", format!("the payload is no JSON: {error}")));
    }
    if text.len() > PAYLOAD_BYTES_MAX {
        let message =
            format!("the payload has {} bytes; at most {PAYLOAD_BYTES_MAX} are allowed", text.len());
        return Err(Failure::bad_input("bad_payload", message));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_was_written() {
        let text = r#" {"n": 12345678901234567890.10, "s": "a\nb", "l": [1,2]} "#;
        let stored = parse(text).expect("JSON");
        assert_eq!(stored, text.trim().as_bytes());
        let view = PayloadView::of(&stored).expect("there is one");
        assert_eq!((serde_json::to_string(&view).expect("JSON"), view.to_string()), {
            (text.trim().to_owned(), text.trim().to_owned())
        });
        let lines = PayloadView::of(b"{\n\"a\": 1\r\n}").expect("there is one");
        assert_eq!(lines.to_string(), "{ \"a\": 1  }");
    }

    #[test]
    fn what_is_no_json_is_refused_and_shown_all_the_same() {
        for text in ["", "{", "{} {}", "nul"] {
            assert_eq!(parse(text).expect_err(text).code, "bad_payload");
        }
        let long = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 1));
        assert!(parse(&long).expect_err("too long").message.contains("65537 bytes"));
        let view = PayloadView::of(&[0xff, 0]).expect("there is one");
        assert_eq!(serde_json::to_string(&view).expect("JSON"), r#"{"hex":"ff00"}"#);
        assert!(PayloadView::of(b"").is_none());
    }
}
