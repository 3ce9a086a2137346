//! Signed notes (C2SP signed-note): a text and the signatures over it.
//!
//! Owns the format and the key ids. Invariants: reading takes any bytes without panic, allocates no more than a
//! few times their number, and is canonical: a note that is read is written as the same bytes. Nothing is
//! verified here: lines are claims, and what they are signatures of is left to [`endorse`](crate::endorse).
//!
//! ```text
//! <text, ending in a newline>
//! <empty line>
//! — <key name> <base64(key id, 4 bytes | signature)>\n      one line per signature
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::Digest as _;

use crate::base64::{base64, base64_decode};
use crate::ids::NodeKey;

/// Longest note: a checkpoint with a cosignature line of 140 bytes from each of 1,024 validators, and as much again
/// for signatures of others.
pub const NOTE_BYTES_MAX: usize = 320 << 10;

/// Algorithm byte of a plain Ed25519 signature over the text.
pub const ALGORITHM_ED25519: u8 = 0x01;

/// Algorithm byte of a timestamped Ed25519 cosignature (C2SP tlog-cosignature).
pub const ALGORITHM_COSIGNATURE: u8 = 0x04;

/// What opens a signature line: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// Why bytes are no signed note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Too long.
    #[error("note has {got} bytes, at most {limit}")]
    TooLong {
        /// Bytes.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Not UTF-8, or a control character other than a newline.
    #[error("note is not printable UTF-8")]
    Text,
    /// No empty line, nothing before it, or nothing after it.
    #[error("note has no text, an empty line and signatures")]
    Parts,
    /// A line that is no signature.
    #[error("signature line {line} of the note is malformed")]
    Line {
        /// Which, from 0.
        line: usize,
    },
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    /// Whose key, by name: no white space, no plus.
    pub name: String,
    /// Which of the keys with this name.
    pub key_id: [u8; 4],
    /// What the algorithm of that key makes; at least one byte.
    pub signature: Vec<u8>,
}

/// A text with signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// The text, its last newline included.
    pub text: String,
    /// The signatures, at least one.
    pub signatures: Vec<SignatureLine>,
}

/// Id of a key: the first four bytes of SHA-256(name, newline, algorithm byte, key).
#[must_use]
pub fn key_id(name: &str, algorithm: u8, key: &NodeKey) -> [u8; 4] {
    let mut hasher = sha2::Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', algorithm]);
    hasher.update(key.0);
    let hash: [u8; 32] = hasher.finalize().into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

/// The text form of a key that tools for signed notes take: `name+key id+base64(algorithm byte, key)`.
#[must_use]
pub fn verifier_key(name: &str, algorithm: u8, key: &NodeKey) -> String {
    let mut bytes = Vec::with_capacity(33);
    bytes.push(algorithm);
    bytes.extend_from_slice(&key.0);
    format!("{name}+{:08x}+{}", u32::from_be_bytes(key_id(name, algorithm, key)), base64(&bytes))
}

impl SignatureLine {
    /// The line, its newline included.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(4 + self.signature.len());
        bytes.extend_from_slice(&self.key_id);
        bytes.extend_from_slice(&self.signature);
        format!("{LINE_START}{} {}\n", self.name, base64(&bytes))
    }

    /// Reads a line without its newline.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(LINE_START)?.split_once(' ')?;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
            return None;
        }
        let bytes = base64_decode(signature)?;
        let (key_id, signature) = bytes.split_first_chunk::<4>()?;
        if signature.is_empty() {
            return None;
        }
        Some(Self { name: String::from(name), key_id: *key_id, signature: Vec::from(signature) })
    }
}

impl SignedNote {
    /// The note.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut note = self.text.clone();
        note.push('\n');
        self.signatures.iter().for_each(|line| note.push_str(&line.encode()));
        note
    }

    /// Reads a note.
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { got: note.len(), limit: NOTE_BYTES_MAX });
        }
        let note = core::str::from_utf8(note).map_err(|_| NoteError::Text)?;
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(NoteError::Text);
        }
        // The last empty line parts them: a text may hold empty lines, signatures may not.
        let at = note.rfind("\n\n").ok_or(NoteError::Parts)?;
        let (text, rest) = (&note[..=at], &note[at + 2..]);
        let lines = rest.strip_suffix('\n').ok_or(NoteError::Parts)?;
        let signatures = lines.split('\n').enumerate();
        let signatures = signatures
            .map(|(line, text)| SignatureLine::parse(text).ok_or(NoteError::Line { line }))
            .collect::<Result<_, _>>()?;
        Ok(Self { text: String::from(text), signatures })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    /// The example of the C2SP signed-note specification.
    const EXAMPLE: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
        ed è subito sera.\n\n\
        — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

    #[test]
    fn the_example_of_the_specification_is_read_and_written_as_it_is() {
        let note = SignedNote::parse(EXAMPLE.as_bytes()).unwrap();
        assert!(note.text.starts_with("Ognuno") && note.text.ends_with("\n\ned è subito sera.\n"));
        let [line] = &note.signatures[..] else { panic!("one signature") };
        assert_eq!(line.name, "quasimodo.example/salvatore");
        assert_eq!((line.key_id, line.signature.len()), ([0x36, 0x7b, 0xa0, 0x4b], 64));
        assert_eq!(note.encode(), EXAMPLE);
    }

    #[test]
    fn a_verifier_key_has_the_id_that_the_go_implementation_computes() {
        // golang.org/x/mod/sumdb/note, its documentation: PeterNeumann+c74f20a3+ARpc2Qc...
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let encoded = base64_decode(text.rsplit_once('+').unwrap().1).unwrap();
        let key = NodeKey::from(<[u8; 32]>::try_from(&encoded[1..]).unwrap());
        assert_eq!(verifier_key("PeterNeumann", ALGORITHM_ED25519, &key), text);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let with = |from: &str, to: &str| SignedNote::parse(EXAMPLE.replacen(from, to, 1).as_bytes());
        assert_eq!(with("sera.\n\n", "sera.\n"), Err(NoteError::Line { line: 0 }), "verse as a signature");
        assert_eq!(with("Ognuno", "\tOgnuno"), Err(NoteError::Text));
        assert_eq!(with("salvatore ", "salvatore  "), Err(NoteError::Line { line: 0 }));
        assert_eq!(with("salvatore", "salva+tore"), Err(NoteError::Line { line: 0 }));
        assert_eq!(with("salvatore", "salva\u{a0}tore"), Err(NoteError::Line { line: 0 }));
        assert_eq!(with("\u{2014}", "-"), Err(NoteError::Line { line: 0 }));
        assert_eq!(with("NtIc=", "NtId="), Err(NoteError::Line { line: 0 }), "base64 with stray bits");
        assert_eq!(SignedNote::parse(&EXAMPLE.as_bytes()[..EXAMPLE.len() - 1]), Err(NoteError::Parts));
        assert_eq!(SignedNote::parse(b"text\n"), Err(NoteError::Parts));
        assert_eq!(SignedNote::parse(b"text\n\n"), Err(NoteError::Parts));
        assert_eq!(SignedNote::parse(b"te\xffxt\n\n"), Err(NoteError::Text));
        let long = "x".to_string().repeat(NOTE_BYTES_MAX + 1);
        let limit = NOTE_BYTES_MAX;
        assert_eq!(SignedNote::parse(long.as_bytes()), Err(NoteError::TooLong { got: limit + 1, limit }));
        // Four bytes of key id and no signature.
        assert_eq!(
            SignedNote::parse("t\n\n\u{2014} a AAAAAA==\n".as_bytes()),
            Err(NoteError::Line { line: 0 })
        );
    }
}
