//! Identifiers: message ids, keys, the genesis id, network ids, lanes and places.
//!
//! Owns the newtypes, their text forms (lower-case hex for byte arrays, decimal for lanes, `lane/position`
//! for places) and the packing of a place into 64 bits. Invariant: a [`Place`] made by [`Place::new`] keeps
//! its lane and position apart; bytes from the wire may hold any value, so whether a place exists is always
//! asked of the log, never assumed. How ids are computed is left to [`message`](crate::message) and
//! [`genesis`](crate::genesis).
//!
//! | bits of a place | field |
//! |---|---|
//! | 48..64 | lane (below [`LANES_MAX`]; [`LaneId::ROOTS`] for the two genesis roots) |
//! | 0..48 | position: index of the leaf in the lane's Merkle tree |

use core::fmt;
use core::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Lanes of one ledger, at most. The registry names lanes; a node needs a frontier, a log and a watermark for
/// each, so the number is fixed small (design, section 4).
pub const LANES_MAX: u16 = 1_024;

/// Positions of one lane, at most: a position has 48 bits. At ten million messages a second a lane
/// lasts 325 days; a node opens a new lane long before.
pub const LANE_POSITIONS_MAX: u64 = 1 << POSITION_BITS;

const POSITION_BITS: u32 = 48;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text has another length than the identifier's hex form.
    #[error("{got} characters where {limit} hexadecimal digits are needed")]
    Length {
        /// Bytes of the text.
        got: usize,
        /// Hexadecimal digits needed.
        limit: usize,
    },
    /// A byte of the text is no hexadecimal digit.
    #[error("byte {got:#04x} at offset {offset} is no hexadecimal digit")]
    Digit {
        /// The byte.
        got: u8,
        /// Its offset in the text.
        offset: usize,
    },
    /// The text is no `lane/position` pair, or a number in it is out of range.
    #[error("not a place: write lane/position, or root/0 or root/1")]
    Place,
    /// The text is no lane number below [`LANES_MAX`].
    #[error("not a lane: write a number below {LANES_MAX}")]
    Lane,
}

/// Writes `bytes` as lower-case hexadecimal.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads exactly `2 * N` hexadecimal digits, of either case.
fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return Err(ParseIdError::Length { got: text.len(), limit: 2 * N });
    }
    let digit = |offset: usize| {
        let got = text[offset];
        match got {
            b'0'..=b'9' => Ok(got - b'0'),
            b'a'..=b'f' => Ok(got - b'a' + 10),
            b'A'..=b'F' => Ok(got - b'A' + 10),
            _ => Err(ParseIdError::Digit { got, offset }),
        }
    };
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * i)? << 4 | digit(2 * i + 1)?;
    }
    Ok(bytes)
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(transparent)]
        pub struct $name(
            /// The bytes as they stand on the wire.
            pub [u8; $bytes],
        );

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// The bytes as they stand on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl From<[u8; $bytes]> for $name {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(f, &self.0)?;
                f.write_str(")")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

byte_id! {
    /// BLAKE3 id of a message: over head and payload, without the signature.
    MessageId, 32
}

impl MessageId {
    /// Ids as plain hashes, such as the data of leaves.
    #[must_use]
    pub fn hashes(ids: &[Self]) -> &[[u8; 32]] {
        ids.as_bytes().as_chunks().0
    }

    /// Ids as plain hashes, for whoever writes many.
    pub fn hashes_mut(ids: &mut [Self]) -> &mut [[u8; 32]] {
        ids.as_mut_bytes().as_chunks_mut().0
    }
}

byte_id! {
    /// Ed25519 public key of a device or a node, compressed (RFC 8032). Any 32 bytes: whether they decode to
    /// a point is the verifier's question.
    DeviceKey, 32
}
byte_id! {
    /// BLAKE3 id of a genesis file.
    GenesisId, 32
}
byte_id! {
    /// First four bytes of the genesis id: keeps messages of one ledger out of another. Not a secret and not
    /// unique by itself.
    NetworkId, 4
}

/// Ed25519 public key of a node or validator. The same type as a device's: a witness is a message, and its
/// validator its issuer.
pub type NodeKey = DeviceKey;

impl GenesisId {
    /// The network that this genesis founds.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        let [a, b, c, d, ..] = self.0;
        NetworkId([a, b, c, d])
    }
}

/// Number of a lane.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct LaneId(
    /// The number.
    pub u16,
);

impl LaneId {
    /// The lane that stands for the genesis: its positions 0 and 1 are the two roots. No batch has it.
    pub const ROOTS: Self = Self(u16::MAX);

    /// Whether a log may have this number: below [`LANES_MAX`].
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 < LANES_MAX
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneId({})", self.0)
    }
}

impl FromStr for LaneId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.parse() {
            Ok(number) if number < LANES_MAX => Ok(Self(number)),
            _ => Err(ParseIdError::Lane),
        }
    }
}

/// Where a message lies: lane and position in it, packed into 64 bits.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Place(
    /// Lane in the high 16 bits, position in the low 48.
    pub u64,
);

impl Place {
    /// The place of `position` in `lane`. Positions are below [`LANE_POSITIONS_MAX`]; higher bits are cut
    /// off, and a debug build asserts that there are none.
    #[must_use]
    pub const fn new(lane: LaneId, position: u64) -> Self {
        debug_assert!(position <= POSITION_MASK);
        Self((lane.0 as u64) << POSITION_BITS | (position & POSITION_MASK))
    }

    /// The place of genesis root 0 or 1 (any other `index` is taken modulo 2).
    #[must_use]
    pub const fn root(index: u8) -> Self {
        Self::new(LaneId::ROOTS, (index & 1) as u64)
    }

    /// The lane.
    #[must_use]
    pub const fn lane(self) -> LaneId {
        LaneId((self.0 >> POSITION_BITS) as u16)
    }

    /// The position in the lane: a leaf index of its Merkle tree.
    #[must_use]
    pub const fn position(self) -> u64 {
        self.0 & POSITION_MASK
    }

    /// Whether this is the place of one of the two genesis roots.
    #[must_use]
    pub const fn is_root(self) -> bool {
        self.lane().0 == LaneId::ROOTS.0 && self.position() < 2
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            write!(f, "root/{}", self.position())
        } else {
            write!(f, "{}/{}", self.lane(), self.position())
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

impl FromStr for Place {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (lane, position) = text.split_once('/').ok_or(ParseIdError::Place)?;
        let position: u64 = position.parse().map_err(|_| ParseIdError::Place)?;
        if lane == "root" {
            return if position < 2 { Ok(Self::root(position as u8)) } else { Err(ParseIdError::Place) };
        }
        let lane: u16 = lane.parse().map_err(|_| ParseIdError::Place)?;
        if position > POSITION_MASK {
            return Err(ParseIdError::Place);
        }
        Ok(Self::new(LaneId(lane), position))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn ids_survive_their_hex_text_in_either_case() {
        let id = MessageId(core::array::from_fn(|i| i as u8 * 7));
        let text = id.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!("00ff10Ab".parse(), Ok(NetworkId([0, 0xff, 0x10, 0xab])));
    }

    #[test]
    fn a_text_of_wrong_length_or_with_a_wrong_digit_is_named() {
        assert_eq!("00ff10a".parse::<NetworkId>(), Err(ParseIdError::Length { got: 7, limit: 8 }));
        assert_eq!("00ff10ag".parse::<NetworkId>(), Err(ParseIdError::Digit { got: b'g', offset: 7 }));
        // Four characters, eight bytes: must not be cut inside a character.
        assert!("éééé".parse::<NetworkId>().is_err());
    }

    #[test]
    fn a_place_keeps_lane_and_position_apart() {
        for (lane, position) in [(0, 0), (1, 0), (0, 1), (1_023, POSITION_MASK), (u16::MAX, 5)] {
            let place = Place::new(LaneId(lane), position);
            assert_eq!((place.lane(), place.position()), (LaneId(lane), position));
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        assert_eq!(Place::root(1).to_string(), "root/1");
        assert!(Place::root(0).is_root() && !Place::new(LaneId::ROOTS, 2).is_root());
        assert_eq!("root/2".parse::<Place>(), Err(ParseIdError::Place));
        assert_eq!("3".parse::<Place>(), Err(ParseIdError::Place));
        assert_eq!("1024".parse::<LaneId>(), Err(ParseIdError::Lane));
    }

    #[test]
    fn places_of_one_lane_sort_by_position() {
        assert!(Place::new(LaneId(2), 9) < Place::new(LaneId(2), 10));
        assert!(Place::new(LaneId(2), 10) < Place::new(LaneId(3), 0));
    }
}
