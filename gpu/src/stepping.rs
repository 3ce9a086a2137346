//! A batch kernel by kernel, with a wait after each: for tests against the twins, and for measurements. Nothing here is on the way of a
//! node's batches.

use std::time::{Duration, Instant};

use weft_crypto::Columns;
use weft_shaders::bindings::{Buffers, TABLE_WORDS};
use weft_shaders::equation::table_words;

use crate::engine::{Engine, Method, Stage, lock};
use crate::equation::Plan;
use crate::error::GpuError;
use crate::memory::Slot;

impl Engine {
    /// Runs a batch kernel by kernel, waiting after each: `after` gets the stage, its duration and, if `dump`, the work
    /// buffers as the device left them. For tests against the twins and for profiles.
    ///
    /// # Errors
    /// As [`Engine::verify`].
    pub fn step(
        &self,
        batch: &Columns<'_>,
        method: Method,
        dump: bool,
        mut after: impl FnMut(Stage, Duration, Buffers),
    ) -> Result<(), GpuError> {
        let rows = batch.len();
        if rows > self.rows_max() {
            return Err(GpuError::TooLarge { got: rows, limit: self.rows_max() });
        }
        let slot = self.take_slot()?;
        let mut run = || -> Result<(), GpuError> {
            let parts = std::slice::from_ref(batch);
            let hash = self.upload(&slot, parts, rows)?;
            let plan = self.plan(&slot, parts, method)?;
            let equations = plan.as_ref().map_or(0, |plan| plan.rows.len());
            // Held to the end: the batch is submitted in pieces.
            let mut residents = lock(&self.residents);
            let places = self.place(&slot, &mut residents, parts, 0, equations);
            self.queue.submit([]);
            self.wait()?;
            for stage in Engine::stages(rows, places.list.len(), hash, equations) {
                let start = Instant::now();
                let mut encoder =
                    self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    self.encode(&mut pass, &slot, stage);
                }
                self.queue.submit([encoder.finish()]);
                self.wait()?;
                let took = start.elapsed();
                let mut buffers = Buffers::default();
                if dump {
                    buffers.scalars = self.read_words(&self.work.scalars, rows * 16)?;
                    buffers.points =
                        self.read_words(&self.work.points, self.work.points.size() as usize / 4)?;
                    (buffers.places, buffers.list) = (places.places.clone(), places.list.clone());
                    let tables = (rows * TABLE_WORDS).max(table_words(rows, equations));
                    buffers.tables = self.read_words(&self.work.tables, tables)?;
                    buffers.flags = self.read_words(&self.work.flags, rows + equations)?;
                    if let Some(Plan { z, words, .. }) = &plan {
                        (buffers.z, buffers.equations) = (weft_shaders::bindings::words(z), words.clone());
                    }
                }
                after(stage, took, buffers);
            }
            Ok(())
        };
        let result = run();
        self.return_slot(slot);
        result
    }

    /// Uploads a batch and waits until it is on the device: what the transfer alone costs.
    ///
    /// # Errors
    /// As [`Engine::verify`].
    pub fn transfer(&self, batch: &Columns<'_>) -> Result<(), GpuError> {
        if batch.len() > self.rows_max() {
            return Err(GpuError::TooLarge { got: batch.len(), limit: self.rows_max() });
        }
        let slot = self.take_slot()?;
        let result = self.upload(&slot, std::slice::from_ref(batch), batch.len()).and_then(|_| {
            self.queue.submit([]);
            self.wait()
        });
        self.return_slot(slot);
        result
    }

    fn read_words(&self, buffer: &wgpu::Buffer, words: usize) -> Result<Vec<u32>, GpuError> {
        let bytes = words as u64 * 4;
        let copy = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("dump"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, bytes);
        self.queue.submit([encoder.finish()]);
        copy.map_async(wgpu::MapMode::Read, 0..bytes, |_| {});
        self.wait()?;
        let view = copy.get_mapped_range(0..bytes).map_err(|error| self.failure(&error.to_string()))?;
        Ok(weft_shaders::bindings::words(&view))
    }

    fn take_slot(&self) -> Result<Slot, GpuError> {
        loop {
            if let Some(slot) = lock(&self.free.slots).pop() {
                return Ok(slot);
            }
            self.check()?;
            self.wait_for_slot();
        }
    }
}
