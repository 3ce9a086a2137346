//! The device's buffers: work buffers shared by all batches, and slots of input and readback, one per batch in flight.
//!
//! Invariants: everything is allocated when the device is opened, nothing while it works; no buffer is larger than the
//! adapter's limits. Batches run one after another on a queue, so that they can share the work buffers; their inputs
//! and answers cannot be shared, since the host touches them while another batch computes.

use weft_shaders::bindings::{
    FE_WORDS, ID_WORDS, KEY_WORDS, POINT_WORDS, SCALAR_WORDS, SIGNATURE_WORDS, TABLE_WORDS,
};
use weft_shaders::equation::{EQUATION_WORDS, Z_WORDS, table_words};
use weft_shaders::sha512;

use crate::equation::equations_max;
use crate::error::GpuError;
use crate::fault::Faults;
use crate::resident::ENTRY_BYTES;
use crate::wait::block_on;

/// Bytes of SHA-512 blocks that a slot holds at least, for messages that are not 32-byte ids.
const BLOCK_BYTES_MIN: u64 = 4 << 20;
/// Bytes of the parameters: four words and 40 vectors of round constants.
pub(crate) const PARAMS_BYTES: usize = 16 + 640;
/// Distance of the parameter sets in their buffer: a multiple of every adapter's offset alignment (at most 256).
pub(crate) const PARAMS_STRIDE: usize = 768;
/// Parameter sets: for everything else, for finish, for decoding R, for decoding keys, for equations.
pub(crate) const PARAMS_SETS: usize = 5;
/// Parts of a batch: canaries, messages, canaries. Each has equations of its own.
const PARTS: usize = 3;
/// The smallest batch that is worth a device: below it an allocation failure is final.
pub(crate) const ROWS_MIN: usize = 1024;

/// Bytes a row takes in the largest buffer: what the adapter's binding limit is divided by.
pub(crate) const TABLE_ROW_BYTES: u64 = TABLE_WORDS as u64 * 4;

/// Work buffers.
pub(crate) struct Work {
    pub(crate) scalars: wgpu::Buffer,
    pub(crate) points: wgpu::Buffer,
    pub(crate) tables: wgpu::Buffer,
    pub(crate) base: wgpu::Buffer,
    pub(crate) flags: wgpu::Buffer,
}

/// Buffers of one batch in flight.
pub(crate) struct Slot {
    pub(crate) params: wgpu::Buffer,
    pub(crate) keys: wgpu::Buffer,
    pub(crate) signatures: wgpu::Buffer,
    pub(crate) messages: wgpu::Buffer,
    pub(crate) readback: wgpu::Buffer,
    pub(crate) bindings: wgpu::BindGroup,
}

/// Where the places of a batch's rows begin in the keys buffer, in bytes, and where the list does.
pub(crate) fn place_offsets(rows: usize) -> (u64, u64) {
    let places = rows as u64 * KEY_WORDS as u64 * 4;
    (places, places + rows.next_multiple_of(4) as u64 * 4)
}

/// Where the rows' z begin in the keys buffer, in bytes, and where the equations do.
pub(crate) fn equation_offsets(rows: usize) -> (u64, u64) {
    let z = place_offsets(rows).1 + rows.next_multiple_of(4) as u64 * 4;
    (z, z + rows as u64 * Z_WORDS as u64 * 4)
}

/// Bytes of the keys buffer of a slot: keys, places, list, z, equations.
fn key_bytes(rows: usize) -> u64 {
    equation_offsets(rows).1 + equations(rows) as u64 * EQUATION_WORDS as u64 * 4
}

/// Equations that a batch of `rows` rows has, at most.
pub(crate) fn equations(rows: usize) -> usize {
    equations_max(rows, PARTS)
}

/// Words of the tables: of the ladder, and before it of the equations.
fn tables(rows: usize) -> usize {
    (rows * TABLE_WORDS).max(table_words(rows, equations(rows)))
}

/// Words of the answer: a bit a row, then a word an equation.
fn answer_words(rows: usize) -> usize {
    rows.div_ceil(32) + equations(rows)
}

/// Bytes of the messages buffer of a slot.
pub(crate) fn message_bytes(rows: usize) -> u64 {
    (rows as u64 * ID_WORDS as u64 * 4).max(BLOCK_BYTES_MIN)
}

fn buffer(device: &wgpu::Device, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes,
        usage,
        mapped_at_creation: false,
    })
}

/// The layout of the bind group that all verification kernels share.
pub(crate) fn bind_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = (0..9)
        .map(|binding| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding {
                    0 => wgpu::BufferBindingType::Uniform,
                    1..=3 | 7 => wgpu::BufferBindingType::Storage { read_only: true },
                    _ => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: binding == 0,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("weft"), entries: &entries })
}

/// Allocates everything for batches of `rows` and as many resident keys, or says that memory ran out.
pub(crate) fn allocate(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    base_words: usize,
    rows: usize,
    residents: usize,
    slots: usize,
    faults: &Faults,
) -> Result<(Work, Vec<Slot>), GpuError> {
    use wgpu::BufferUsages as Use;
    // A buffer that could not be made also makes the bind groups below fail: that error belongs to the same attempt, and must not end
    // a device that would have memory for less.
    let consequences = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let beyond = if faults.allocation_fails() { device.limits().max_buffer_size } else { 0 };
    let input = Use::STORAGE | Use::COPY_DST;
    let output = Use::STORAGE | Use::COPY_SRC;
    let words = |per_row: usize| rows as u64 * per_row as u64 * 4;
    let work = Work {
        scalars: buffer(device, "scalars", words(SCALAR_WORDS), output),
        points: buffer(
            device,
            "points",
            words(POINT_WORDS) + residents as u64 * ENTRY_BYTES,
            output | Use::COPY_DST,
        ),
        tables: buffer(device, "tables", tables(rows) as u64 * 4 + beyond, output),
        base: buffer(device, "base", base_words as u64 * 4, input),
        flags: buffer(device, "flags", (rows + equations(rows)) as u64 * 4, output),
    };
    let slots = (0..slots)
        .map(|_| {
            let params =
                buffer(device, "params", (PARAMS_STRIDE * PARAMS_SETS) as u64, Use::UNIFORM | Use::COPY_DST);
            let keys = buffer(device, "keys", key_bytes(rows), input);
            let signatures = buffer(device, "signatures", words(SIGNATURE_WORDS), input);
            let messages = buffer(device, "messages", message_bytes(rows), input);
            let readback =
                buffer(device, "readback", answer_words(rows) as u64 * 4, Use::MAP_READ | Use::COPY_DST);
            let params_binding = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &params,
                offset: 0,
                size: wgpu::BufferSize::new(PARAMS_BYTES as u64),
            });
            let storage = [
                &keys,
                &signatures,
                &messages,
                &work.scalars,
                &work.points,
                &work.tables,
                &work.base,
                &work.flags,
            ];
            let entries: Vec<_> = std::iter::once(params_binding)
                .chain(storage.iter().map(|b| b.as_entire_binding()))
                .zip(0..)
                .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
                .collect();
            let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("weft"),
                layout,
                entries: &entries,
            });
            Slot { params, keys, signatures, messages, readback, bindings }
        })
        .collect();
    let short = block_on(scope.pop()).is_some();
    match block_on(consequences.pop()) {
        None if !short => Ok((work, slots)),
        _ => Err(GpuError::OutOfMemory { rows }),
    }
}

/// One parameter set as bytes. `rows` are the dispatch's, `places` is where the places begin (in vectors of 16 bytes).
pub(crate) fn params(rows: usize, option: usize, lanes: usize, places: usize) -> [u8; PARAMS_BYTES] {
    let mut out = [0; PARAMS_BYTES];
    // Rows, options and lanes are below 2^32: the buffers they count are.
    let constants = sha512::ROUND_CONSTANTS.iter().flat_map(|k| sha512::pair(*k));
    let words = [rows as u32, option as u32, lanes as u32, places as u32].into_iter().chain(constants);
    for (four, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *four = word.to_le_bytes();
    }
    out
}

/// Bytes of device memory that a device with these sizes takes.
#[must_use]
pub fn device_bytes(rows: usize, residents: usize, slots: usize, base_words: usize) -> u64 {
    let work = (rows * (SCALAR_WORDS + POINT_WORDS + 1) + tables(rows) + equations(rows)) as u64 * 4
        + residents as u64 * ENTRY_BYTES
        + base_words as u64 * 4;
    let slot = key_bytes(rows)
        + rows as u64 * 4 * SIGNATURE_WORDS as u64
        + message_bytes(rows)
        + answer_words(rows) as u64 * 4;
    work + slots as u64 * slot
}

const _: () = assert!(PARAMS_BYTES <= PARAMS_STRIDE && PARAMS_STRIDE.is_multiple_of(256));
const _: () = assert!(POINT_WORDS == 4 * FE_WORDS);
