//! The shape in which a batch reaches a verifier: three parallel columns, borrowed, nothing copied.
//!
//! Invariant: row `i` of every column belongs to signature `i`, and all columns have the same length. A mismatch is
//! a bug of the caller, never something a peer can cause, so it panics with both lengths instead of guessing.

/// A batch to verify or to describe: one row per signature.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Compressed Ed25519 public keys, 32 bytes each. Equal keys may repeat; a batch verifier merges them.
    pub keys: &'a [[u8; 32]],
    /// What was signed.
    pub messages: Messages<'a>,
    /// Signatures, 64 bytes each: R then s (RFC 8032).
    pub signatures: &'a [[u8; 64]],
}

/// The column of signed messages.
#[derive(Clone, Copy, Debug)]
pub enum Messages<'a> {
    /// 32-byte message ids, side by side: what weft's own messages sign. SHA-512 then reads one block per row.
    Ids(&'a [[u8; 32]]),
    /// Messages of any length.
    Slices(&'a [&'a [u8]]),
}

impl<'a> Messages<'a> {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Messages::Ids(ids) => ids.len(),
            Messages::Slices(slices) => slices.len(),
        }
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that row `index` signs.
    ///
    /// # Panics
    /// If `index` is not below [`Messages::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> &'a [u8] {
        match self {
            Messages::Ids(ids) => &ids[index],
            Messages::Slices(slices) => slices[index],
        }
    }
}

impl<'a> Columns<'a> {
    /// Number of signatures in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the batch has no signature.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks that every column and the verdicts have one row per signature; returns the number of rows.
    ///
    /// # Panics
    /// If they do not: that is a bug of the caller.
    pub fn check_lengths(&self, verdicts: &[bool]) -> usize {
        let rows = self.keys.len();
        assert_eq!(self.messages.len(), rows, "messages and keys must have the same number of rows");
        assert_eq!(self.signatures.len(), rows, "signatures and keys must have the same number of rows");
        assert_eq!(verdicts.len(), rows, "verdicts and keys must have the same number of rows");
        rows
    }

    /// The rows `start .. end` as a batch of their own.
    ///
    /// # Panics
    /// If `end` is beyond the batch or before `start`.
    #[must_use]
    pub fn rows(&self, start: usize, end: usize) -> Columns<'a> {
        Columns {
            keys: &self.keys[start..end],
            messages: match self.messages {
                Messages::Ids(ids) => Messages::Ids(&ids[start..end]),
                Messages::Slices(slices) => Messages::Slices(&slices[start..end]),
            },
            signatures: &self.signatures[start..end],
        }
    }
}

/// A verifier of whole batches with a verdict per signature.
///
/// Every implementation gives exactly the verdicts of [`crate::serial::verify_one`] (ZIP-215: cofactored, `s` below
/// the group order, any encoding of a point accepted), for every batch, except with probability about 2^-125 over
/// its own secret coefficients.
pub trait BatchVerifier: Send + Sync {
    /// The backend's name, as used on command lines and in reports: `serial`, `avx2`, `avx512`.
    fn name(&self) -> &'static str;

    /// Writes into `verdicts[i]` whether signature `i` is valid. Former contents of `verdicts` do not matter.
    ///
    /// # Panics
    /// If the columns and `verdicts` differ in length (see [`Columns::check_lengths`]).
    fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]);

    /// [`BatchVerifier::verify`] for a batch in which bad signatures are expected: the same verdicts, in less time if
    /// there are many, in somewhat more if there are none.
    ///
    /// # Panics
    /// As [`BatchVerifier::verify`].
    fn verify_suspect(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.verify(batch, verdicts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cuts_every_column_at_the_same_places() {
        let keys = [[1; 32], [2; 32], [3; 32]];
        let signatures = [[4; 64], [5; 64], [6; 64]];
        let slices: [&[u8]; 3] = [b"a", b"", b"ccc"];
        for (messages, middle) in
            [(Messages::Slices(&slices), &b""[..]), (Messages::Ids(&keys), &keys[1][..])]
        {
            let batch = Columns { keys: &keys, messages, signatures: &signatures };
            let part = batch.rows(1, 3);
            assert_eq!((part.len(), part.keys[0], part.signatures[1]), (2, keys[1], signatures[2]));
            assert_eq!(part.messages.get(0), middle);
            assert!(batch.rows(2, 2).is_empty() && batch.rows(2, 2).messages.is_empty());
        }
    }
}
