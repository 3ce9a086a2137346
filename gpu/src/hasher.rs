//! BLAKE3 message ids on a device: messages in, 32-byte ids out.
//!
//! Messages of more than [`message_ids::MESSAGE_BYTES_MAX`] bytes are hashed on the CPU: they need BLAKE3's tree, and
//! among device messages they are rare. The ids are not guarded: whoever needs certainty compares a sample.

use std::sync::{Mutex, PoisonError};

use weft_shaders::bindings::WORKGROUP;
use weft_shaders::{Kernel, message_ids};

use crate::engine::Engine;
use crate::error::GpuError;

/// Messages per batch.
const ROWS_MAX: usize = 1 << 17;
/// Bytes of messages per batch, each filled up to a multiple of 64: 64 MiB, half of what every adapter can bind.
const ARENA_BYTES: usize = 64 << 20;

struct Buffers {
    params: wgpu::Buffer,
    bytes: wgpu::Buffer,
    spans: wgpu::Buffer,
    ids: wgpu::Buffer,
    readback: wgpu::Buffer,
    bindings: wgpu::BindGroup,
    arena: Vec<u8>,
    lengths: Vec<u8>,
}

/// Hashes messages under one BLAKE3 context.
pub struct MessageHasher<'a> {
    engine: &'a Engine,
    context: &'static str,
    pipeline: wgpu::ComputePipeline,
    buffers: Mutex<Buffers>,
}

impl<'a> MessageHasher<'a> {
    /// Compiles the kernel on the engine's device and allocates its buffers (about 80 MiB there, 64 MiB here).
    ///
    /// # Errors
    /// What ended the device.
    pub fn new(engine: &'a Engine, context: &'static str) -> Result<Self, GpuError> {
        use wgpu::BufferUsages as Use;
        engine.check()?;
        let (device, queue) = engine.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("message_ids"),
            source: wgpu::ShaderSource::Wgsl(Kernel::MessageIds.source(engine.layout()).into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("message_ids"),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let buffer = |label, size: usize, usage| {
            let size = size as u64;
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let params = buffer("id params", 48, Use::UNIFORM | Use::COPY_DST);
        let bytes = buffer("id bytes", ARENA_BYTES, Use::STORAGE | Use::COPY_DST);
        let spans = buffer("id spans", ROWS_MAX * 8, Use::STORAGE | Use::COPY_DST);
        let ids = buffer("ids", ROWS_MAX * 32, Use::STORAGE | Use::COPY_SRC);
        let readback = buffer("id readback", ROWS_MAX * 32, Use::MAP_READ | Use::COPY_DST);
        let entries: Vec<_> = [&params, &bytes, &spans, &ids]
            .iter()
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("message_ids"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let key = blake3::hazmat::hash_derive_key_context(context);
        queue.write_buffer(&params, 16, &key);
        engine.check()?;
        let buffers =
            Buffers { params, bytes, spans, ids, readback, bindings, arena: Vec::new(), lengths: Vec::new() };
        Ok(MessageHasher { engine, context, pipeline, buffers: Mutex::new(buffers) })
    }

    /// The ids of `messages`.
    ///
    /// # Errors
    /// What ended the device.
    pub fn ids(&self, messages: &[&[u8]]) -> Result<Vec<[u8; 32]>, GpuError> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ids = vec![[0; 32]; messages.len()];
        let mut rows: Vec<usize> = Vec::new();
        buffers.arena.clear();
        buffers.lengths.clear();
        for (row, message) in messages.iter().enumerate() {
            if message.len() > message_ids::MESSAGE_BYTES_MAX {
                ids[row] = blake3::derive_key(self.context, message);
                continue;
            }
            let padded =
                message.len().next_multiple_of(message_ids::BLOCK_BYTES).max(message_ids::BLOCK_BYTES);
            if rows.len() == ROWS_MAX || buffers.arena.len() + padded > ARENA_BYTES {
                self.run(&mut buffers, &rows, &mut ids)?;
                rows.clear();
            }
            let first = buffers.arena.len();
            let span = [(first / message_ids::BLOCK_BYTES) as u32, message.len() as u32];
            span.iter().for_each(|word| buffers.lengths.extend_from_slice(&word.to_le_bytes()));
            buffers.arena.extend_from_slice(message);
            buffers.arena.resize(first + padded, 0);
            rows.push(row);
        }
        if !rows.is_empty() {
            self.run(&mut buffers, &rows, &mut ids)?;
        }
        Ok(ids)
    }

    /// One batch: what is in the arena, for these rows.
    fn run(&self, buffers: &mut Buffers, rows: &[usize], ids: &mut [[u8; 32]]) -> Result<(), GpuError> {
        self.engine.check()?;
        let (device, queue) = self.engine.device();
        queue.write_buffer(&buffers.params, 0, &(rows.len() as u32).to_le_bytes());
        queue.write_buffer(&buffers.bytes, 0, &buffers.arena);
        queue.write_buffer(&buffers.spans, 0, &buffers.lengths);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &buffers.bindings, &[]);
            pass.dispatch_workgroups((rows.len() as u32).div_ceil(WORKGROUP), 1, 1);
        }
        let bytes = rows.len() as u64 * 32;
        encoder.copy_buffer_to_buffer(&buffers.ids, 0, &buffers.readback, 0, bytes);
        queue.submit([encoder.finish()]);
        buffers.readback.map_async(wgpu::MapMode::Read, 0..bytes, |_| {});
        self.engine.wait()?;
        {
            let view = buffers
                .readback
                .get_mapped_range(0..bytes)
                .map_err(|error| self.engine.failure(&error.to_string()))?;
            for (row, id) in rows.iter().zip(view.as_chunks::<32>().0) {
                ids[*row] = *id;
            }
        }
        buffers.readback.unmap();
        buffers.arena.clear();
        buffers.lengths.clear();
        Ok(())
    }
}
