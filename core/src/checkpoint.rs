//! The text that a node signs about its lane: a C2SP tlog-checkpoint body.
//!
//! Owns the origin line, the encoding and its reading. Invariant: the text is canonical: one (network, lane,
//! size, root) has one text, so a signature over it is a signature over these values and nothing else.
//! Extension lines, which the format allows and advises against, are refused. Signed notes around the text are
//! left to [`note`](crate::note), who signs it to [`endorse`](crate::endorse).
//!
//! ```text
//! weft/<network, 8 hexadecimal digits>/<lane, decimal>\n
//! <size, decimal>\n
//! <root, standard base64 with padding>\n
//! ```

use alloc::format;
use alloc::string::{String, ToString as _};

pub use crate::base64::base64;
use crate::base64::base64_decode;
use crate::ids::{LANE_POSITIONS_MAX, LaneId, NetworkId};
use crate::merkle::Hash;

/// The checkpoint text of `lane` at `size` leaves with `root`.
#[must_use]
pub fn checkpoint_text(network: NetworkId, lane: LaneId, size: u64, root: &Hash) -> String {
    format!("weft/{network}/{lane}\n{size}\n{}\n", base64(root))
}

/// What a lane is at some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger.
    pub network: NetworkId,
    /// The lane.
    pub lane: LaneId,
    /// Leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// Why a text is no checkpoint of a lane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not three lines.
    #[error("checkpoint has {got} lines, must have 3: origin, size, root")]
    Lines {
        /// Lines.
        got: usize,
    },
    /// The origin names no lane.
    #[error("origin {got:?} is not weft/NETWORK/LANE")]
    Origin {
        /// The first line.
        got: String,
    },
    /// The size is no number, or beyond a lane's.
    #[error("size {got:?} is not a number up to {LANE_POSITIONS_MAX}")]
    Size {
        /// The second line.
        got: String,
    },
    /// The root is no base64 of 32 bytes.
    #[error("root {got:?} is not the base64 of 32 bytes")]
    Root {
        /// The third line.
        got: String,
    },
}

impl Checkpoint {
    /// The name of the log, by the C2SP specifications: its first line, and the name under which its node signs.
    #[must_use]
    pub fn origin(&self) -> String {
        origin(self.network, self.lane)
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        checkpoint_text(self.network, self.lane, self.size, &self.root)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// The first line that is not as [`text`](Self::text) writes it.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines = || text.strip_suffix('\n').unwrap_or("").split('\n');
        let mut three = lines();
        let (Some(first), Some(size), Some(root), None) =
            (three.next(), three.next(), three.next(), three.next())
        else {
            return Err(CheckpointError::Lines { got: lines().count() });
        };
        let (network, lane) =
            parse_origin(first).ok_or_else(|| CheckpointError::Origin { got: String::from(first) })?;
        let size = parse_decimal(size)
            .filter(|size| *size <= LANE_POSITIONS_MAX)
            .ok_or_else(|| CheckpointError::Size { got: String::from(size) })?;
        let root = parse_hash(root).ok_or_else(|| CheckpointError::Root { got: String::from(root) })?;
        Ok(Self { network, lane, size, root })
    }
}

/// The name of a lane as a log.
#[must_use]
pub fn origin(network: NetworkId, lane: LaneId) -> String {
    format!("weft/{network}/{lane}")
}

fn parse_origin(text: &str) -> Option<(NetworkId, LaneId)> {
    let (network, lane) = text.strip_prefix("weft/")?.split_once('/')?;
    let (network, lane) = (network.parse().ok()?, lane.parse().ok()?);
    // Capital letters and leading zeros parse, and are no name of ours.
    (origin(network, lane) == text).then_some((network, lane))
}

/// A decimal without sign or leading zeros.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A hash in base64.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    // Longer text is not decoded at all.
    if text.len() != 44 {
        return None;
    }
    base64_decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        Checkpoint {
            network: NetworkId([0, 1, 0xfe, 0xff]),
            lane: LaneId(7),
            size: 1_234,
            root: crate::merkle::EMPTY_ROOT,
        }
    }

    #[test]
    fn the_checkpoint_text_has_origin_size_and_root_on_three_lines() {
        let text = example().text();
        assert_eq!(text, "weft/0001feff/7\n1234\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
        assert_eq!(Checkpoint::parse(&text), Ok(example()));
    }

    #[test]
    fn a_text_that_is_not_exactly_ours_is_refused_by_its_line() {
        let text = example().text();
        let with = |from: &str, to: &str| Checkpoint::parse(&text.replacen(from, to, 1)).unwrap_err();
        assert_eq!(with("\n1234", ""), CheckpointError::Lines { got: 2 });
        assert_eq!(with("FU=\n", "FU=\nextension\n"), CheckpointError::Lines { got: 4 });
        assert_eq!(Checkpoint::parse(&text[..text.len() - 1]), Err(CheckpointError::Lines { got: 1 }));
        for origin in
            ["weft/0001feff/07", "weft/0001FEFF/7", "weft/0001feff/1024", "weft/0001feff", "x/0001feff/7"]
        {
            assert_eq!(with("weft/0001feff/7", origin), CheckpointError::Origin { got: origin.into() });
        }
        for size in ["01234", "+1234", "-1", "", "281474976710657", "99999999999999999999"] {
            assert_eq!(with("1234", size), CheckpointError::Size { got: size.into() });
        }
        let short = CheckpointError::Root { got: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuA==".into() };
        assert_eq!(with("uFU=", "uA=="), short);
    }
}
