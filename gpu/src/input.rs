//! What a batch's slot is given before its kernels start: keys, signatures, messages, places, equations, parameters.
//!
//! Leaves the order of these writes and the submission to [`crate::engine`].

use weft_crypto::{Columns, Messages};
use weft_shaders::{Kernel, hash_blocks};

use crate::engine::{Engine, Method, finish_shape};
use crate::equation::Plan;
use crate::error::GpuError;
use crate::memory::{self, PARAMS_STRIDE, Slot};
use crate::resident::{ENTRY_BYTES, Places, Residents};

impl Engine {
    /// Draws and writes a batch's equations, if it is to have some.
    pub(crate) fn plan(
        &self,
        slot: &Slot,
        parts: &[Columns<'_>],
        method: Method,
    ) -> Result<Option<Plan>, GpuError> {
        if method == Method::Ladder || !self.has_equations() {
            return Ok(None);
        }
        let plan = Plan::new(parts)?;
        let (z_at, equations_at) = memory::equation_offsets(parts.iter().map(Columns::len).sum());
        let words: Vec<u8> = plan.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.queue.write_buffer(&slot.keys, z_at, &plan.z);
        self.queue.write_buffer(&slot.keys, equations_at, &words);
        Ok(Some(plan))
    }

    /// Finds the rows' places among the resident keys, and writes them and the parameters: the last thing before a submission.
    pub(crate) fn place(
        &self,
        slot: &Slot,
        residents: &mut Residents,
        parts: &[Columns<'_>],
        decode: usize,
        equations: usize,
    ) -> Places {
        let entries = self.faults.poisoned() as u64;
        for entry in 0..entries {
            let at =
                self.work.points.size() - residents.counts().capacity * ENTRY_BYTES + entry * ENTRY_BYTES;
            self.queue.write_buffer(&self.work.points, at, &[0x15; 40]);
        }
        let places = residents.assign(parts, decode);
        let rows = places.places.len();
        let (places_at, list_at) = memory::place_offsets(rows);
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        self.queue.write_buffer(&slot.keys, places_at, &bytes(&places.places));
        self.queue.write_buffer(&slot.keys, list_at, &bytes(&places.list));
        let (per_lane, lanes) = finish_shape(rows);
        // All are counted in vectors of 16 bytes there, of which there are fewer than rows' bytes.
        let vectors = |bytes: u64| (bytes / 16) as usize;
        let (places_at, list_at) = (vectors(places_at), vectors(list_at));
        let z_at = vectors(memory::equation_offsets(rows).0);
        let sets = [
            (rows, 0, 0),
            (rows, per_lane, lanes),
            (rows, 1, 0),
            (places.list.len(), 0, list_at),
            (rows, equations, z_at),
        ];
        for (set, (rows, option, lanes)) in sets.into_iter().enumerate() {
            let bytes = memory::params(rows, option, lanes, places_at);
            self.queue.write_buffer(&slot.params, (set * PARAMS_STRIDE) as u64, &bytes);
        }
        places
    }

    /// Writes a batch's inputs; says which hash kernel fits its messages.
    pub(crate) fn upload(&self, slot: &Slot, parts: &[Columns<'_>], rows: usize) -> Result<Kernel, GpuError> {
        let mut at = 0u64;
        for part in parts {
            self.queue.write_buffer(&slot.keys, at * 32, part.keys.as_flattened());
            self.queue.write_buffer(&slot.signatures, at * 64, part.signatures.as_flattened());
            at += part.len() as u64;
        }
        if parts.iter().all(|part| matches!(part.messages, Messages::Ids(_))) {
            let mut at = 0u64;
            for part in parts {
                if let Messages::Ids(ids) = part.messages {
                    self.queue.write_buffer(&slot.messages, at * 32, ids.as_flattened());
                    at += ids.len() as u64;
                }
            }
            return Ok(Kernel::HashIds);
        }
        let place = |row: usize| -> (&Columns<'_>, usize) {
            let mut row = row;
            for part in parts {
                if row < part.len() {
                    return (part, row);
                }
                row -= part.len();
            }
            (&parts[0], 0)
        };
        let rows_of = (0..rows).map(|row| {
            let (part, row) = place(row);
            let r = part.signatures[row].first_chunk::<32>().unwrap_or(&[0; 32]);
            (r, &part.keys[row], part.messages.get(row))
        });
        let blocks = hash_blocks::pack_blocks(rows_of);
        let limit = memory::message_bytes(self.rows_max());
        if blocks.len() as u64 > limit {
            return Err(GpuError::TooLarge {
                got: blocks.len(),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            });
        }
        self.queue.write_buffer(&slot.messages, 0, &blocks);
        Ok(Kernel::HashBlocks)
    }
}
