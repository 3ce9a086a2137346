//! One opened device: pipelines, buffers, and the way of a batch through them. Verdicts here are the device's own;
//! [`crate::verifier`] puts the guard around them.
//!
//! Invariants: a batch is at most [`Engine::rows_max`] rows; at most [`Options::slots`] batches are in flight, a
//! further one waits; once the device is lost or failed, everything returns that error and nothing blocks.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weft_crypto::{Columns, Messages};
use weft_shaders::bindings::WORKGROUP;
use weft_shaders::equation::{EQUATION_GROUPS, GROUPS, SHARED_BYTES, WINDOWS};
use weft_shaders::{Kernel, Layout, hash_blocks};

use crate::adapter::{Description, Found};
use crate::cache;
use crate::canary::CANARIES;
use crate::compile::{compile, watch};
use crate::equation::{Equation, Gain, Plan};
use crate::error::{GpuError, contain};
use crate::fault::Faults;
use crate::memory::{self, PARAMS_STRIDE, ROWS_MIN, Slot, Work};
use crate::resident::{self, ResidentCounts, Residents};
use crate::wait::block_on;

/// The longest that a submitted batch may take on a software adapter, which needs seconds for a large one and shares the cores.
const SOFTWARE_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest that it may take on a GPU: systems reset one that does not answer for two to ten seconds, so that whatever is later than
/// that will not come. Clients wait meanwhile.
const BATCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a slot's blocks that are left for the canaries around a batch: one block and one entry each.
const CANARY_BYTES: u64 = 4096;
/// Rows that one invocation of `finish` inverts together, at most: beyond it the inversion is 3 % of the work.
const FINISH_ROWS_MAX: usize = 32;
/// Invocations of `finish` that are worth keeping: fewer leave a large device idle.
const FINISH_LANES_MIN: usize = 8192;

/// Default memory for resident keys: 932,067 of them, and with a batch's points within the 128 MiB that every adapter can bind.
const RESIDENT_BYTES: u64 = 64 << 20;

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows per batch, canaries not counted; more are split. Fewer if the adapter's limits or its memory ask for it.
    pub rows_max: usize,
    /// Batches in flight: 2 overlap upload, compute and readback.
    pub slots: usize,
    /// The field layout, or `None` to measure which is faster on this adapter.
    pub layout: Option<Layout>,
    /// Folder for compiled pipelines, where the driver interface offers to keep them.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of device memory for keys that stay decoded ([`crate::resident`], 72 bytes each); 0 for none. Less where the adapter
    /// cannot bind as much behind the batch's own points. The host takes about 150 bytes a key beside it.
    pub resident_bytes: u64,
    /// Batch equations: `None` uses them where the self-test measures a gain ([`crate::selftest::open`]; not on software adapters, where
    /// compiling their kernels takes longest), `Some` always or never.
    pub equations: Option<bool>,
    /// Faults to inject, for tests.
    pub faults: Arc<Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            rows_max: 1 << 16,
            slots: 2,
            layout: None,
            cache_dir: None,
            resident_bytes: RESIDENT_BYTES,
            equations: None,
            faults: Arc::default(),
        }
    }
}

/// An opened device.
pub struct Engine {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    description: Description,
    layout: Layout,
    pipelines: Vec<(Kernel, wgpu::ComputePipeline)>,
    gain: Option<Gain>,
    pub(crate) work: Work,
    pub(crate) free: Arc<Free>,
    pub(crate) residents: Mutex<Residents>,
    rows_max: usize,
    slots: usize,
    state: Arc<Mutex<Option<GpuError>>>,
    pub(crate) faults: Arc<Faults>,
}

/// Slots that no batch is in.
#[derive(Default)]
pub(crate) struct Free {
    pub(crate) slots: Mutex<Vec<Slot>>,
    returned: Condvar,
}

impl Free {
    fn give_back(&self, slot: Slot) {
        lock(&self.slots).push(slot);
        self.returned.notify_one();
    }
}

/// A batch that the device works on. Dropped unread, it gives its slot back.
pub struct InFlight {
    rows: usize,
    plan: Option<Plan>,
    slot: Option<Slot>,
    home: Arc<Free>,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
    since: Instant,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // Ends the mapping, asked for or done. What the device still does with the slot comes before whatever it is told next. A
        // driver that panics here has ended the device, and the slot is not missed.
        let unmapped = contain(|| {
            slot.readback.unmap();
            Ok(())
        });
        if unmapped.is_ok() {
            self.home.give_back(slot);
        }
    }
}

/// How a batch is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Each row by itself.
    Ladder,
    /// By batch equations, and the rows of those that fail each by itself. An engine without their kernels takes the ladder.
    Equations,
}

/// What the device says of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A verdict a row.
    pub verdicts: Vec<bool>,
    /// The equations that were tried.
    pub equations: Vec<Equation>,
}

/// A kernel in its place in the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// The kernel.
    pub kernel: Kernel,
    /// Its parameter set.
    set: usize,
    /// Invocations.
    pub invocations: usize,
}

/// Rows per invocation of `finish`, and its invocations.
#[must_use]
pub fn finish_shape(rows: usize) -> (usize, usize) {
    let per_lane = (rows / FINISH_LANES_MIN).clamp(1, FINISH_ROWS_MAX);
    (per_lane, rows.div_ceil(per_lane))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is plain state that every holder leaves whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens `found` in one layout, allocates, compiles. Does not test it: see [`crate::selftest`].
    ///
    /// # Errors
    /// [`GpuError::Limit`], [`GpuError::OutOfMemory`] or what the driver says.
    pub fn open(found: &Found, layout: Layout, options: &Options) -> Result<Self, GpuError> {
        let available = found.adapter.limits();
        let mut limits = wgpu::Limits::default();
        let needed = u64::from(limits.max_storage_buffers_per_shader_stage);
        let got = u64::from(available.max_storage_buffers_per_shader_stage);
        if got < needed {
            return Err(GpuError::Limit { what: "storage buffers per shader stage", got, needed });
        }
        limits.max_storage_buffer_binding_size = available.max_storage_buffer_binding_size;
        limits.max_buffer_size = available.max_buffer_size;
        let mut features = wgpu::Features::empty();
        if layout.needs_int64() {
            if !found.description.int64 {
                return Err(GpuError::Limit { what: "64-bit integers in shaders", got: 0, needed: 1 });
            }
            features |= wgpu::Features::SHADER_INT64;
        }
        features |= found.adapter.features() & wgpu::Features::PIPELINE_CACHE;
        let shared = SHARED_BYTES as u32;
        let equations =
            options.equations != Some(false) && available.max_compute_workgroup_storage_size >= shared;
        if equations {
            limits.max_compute_workgroup_storage_size = limits.max_compute_workgroup_storage_size.max(shared);
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("weft"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let (device, queue) = block_on(found.adapter.request_device(&descriptor))
            .map_err(|error| GpuError::Failed(error.to_string()))?;
        let state = Arc::new(Mutex::new(None));
        watch(&device, &state);

        let cache = cache::open(&found.adapter, &device, options.cache_dir.as_deref(), layout);
        let bind_layout = memory::bind_layout(&device);
        let pipelines = compile(&device, &bind_layout, layout, equations, cache.pipelines());
        cache.save();

        let base = weft_shaders::base_table(layout);
        let binding_bytes = available.max_storage_buffer_binding_size.min(available.max_buffer_size);
        let binding_rows = usize::try_from(binding_bytes / memory::TABLE_ROW_BYTES).unwrap_or(usize::MAX);
        // Dispatches are one-dimensional: at most 65,535 workgroups by default.
        let dispatch_rows = limits.max_compute_workgroups_per_dimension as usize * WORKGROUP as usize;
        // The guard's canaries come on top, so that a batch of a round number of rows is not split for them.
        let mut rows =
            options.rows_max.min(binding_rows.saturating_sub(CANARIES)).min(dispatch_rows - CANARIES).max(1);
        let mut resident_bytes = options.resident_bytes;
        let (work, slots, residents) = loop {
            let residents = resident::capacity(resident_bytes, binding_bytes, rows + CANARIES);
            match memory::allocate(
                &device,
                &bind_layout,
                base.len(),
                rows + CANARIES,
                residents,
                options.slots.max(1),
                &options.faults,
            ) {
                Ok((work, slots)) => break (work, slots, residents),
                Err(error) if rows / 2 < ROWS_MIN => return Err(error),
                Err(_) => (rows, resident_bytes) = (rows / 2, resident_bytes / 2),
            }
        };
        let bytes: Vec<u8> = base.iter().flat_map(|word| word.to_le_bytes()).collect();
        queue.write_buffer(&work.base, 0, &bytes);
        let engine = Engine {
            description: found.description.clone(),
            layout,
            pipelines,
            gain: (equations && options.equations == Some(true)).then_some(Gain::DEMANDED),
            work,
            slots: slots.len(),
            free: Arc::new(Free { slots: Mutex::new(slots), returned: Condvar::new() }),
            residents: Mutex::new(Residents::new(rows + CANARIES, residents)),
            rows_max: rows + CANARIES,
            state,
            faults: Arc::clone(&options.faults),
            device,
            queue,
        };
        engine.check()?;
        Ok(engine)
    }

    /// The adapter.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The field layout of its kernels.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What batch equations gain on this device; `None` where they are not used.
    #[must_use]
    pub fn gain(&self) -> Option<Gain> {
        self.gain
    }

    /// Whether it has the kernels of batch equations.
    #[must_use]
    pub fn has_equations(&self) -> bool {
        self.pipelines.iter().any(|(kernel, _)| *kernel == Kernel::Close)
    }

    /// Takes a measurement's result. Without a gain the equations' kernels are dropped.
    pub(crate) fn set_gain(&mut self, gain: Option<Gain>) {
        self.gain = gain;
        if gain.is_none() {
            self.pipelines.retain(|(kernel, _)| !kernel.is_of_equations());
        }
    }

    /// The largest batch, canaries counted.
    #[must_use]
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Bytes of device memory that its buffers take.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        let residents = usize::try_from(self.residents().capacity).unwrap_or(usize::MAX);
        memory::device_bytes(
            self.rows_max,
            residents,
            self.slots,
            weft_shaders::base_table(self.layout).len(),
        )
    }

    /// Batches that can be in flight.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The device and its queue, for kernels beside the verification's.
    pub(crate) fn device(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.device, &self.queue)
    }

    /// Whether the device still works.
    ///
    /// # Errors
    /// The error that ended it.
    pub fn check(&self) -> Result<(), GpuError> {
        lock(&self.state).clone().map_or(Ok(()), Err)
    }

    /// What the store of resident keys holds and did.
    #[must_use]
    pub fn residents(&self) -> ResidentCounts {
        lock(&self.residents).counts()
    }

    /// Lets keys stay on the device, until others push them out: their next batch decodes them for good. For keys of signatures
    /// that were verified as valid, so that nobody fills the store with junk. Nothing on a device that ended. How many were new.
    pub fn admit<'a>(&self, keys: impl IntoIterator<Item = &'a [u8; 32]>, new_max: usize) -> usize {
        let mut residents = lock(&self.residents);
        // Asked under the lock: whoever ends the device clears the store after that.
        if self.check().is_err() || new_max == 0 {
            return 0;
        }
        let mut new = 0;
        for key in keys {
            new += usize::from(residents.admit(key));
            if new == new_max {
                break;
            }
        }
        new
    }

    /// Forgets every resident key.
    pub fn forget(&self) {
        lock(&self.residents).clear();
    }

    /// The kernels of a batch, in order. `hash` is `HashIds` or `HashBlocks`; `decoded` keys are not resident. With `equations`, the
    /// ladder's kernels come after them, and find nothing to do where equations held.
    #[must_use]
    pub fn stages(rows: usize, decoded: usize, hash: Kernel, equations: usize) -> Vec<Stage> {
        let stage = |kernel, set, invocations| Stage { kernel, set, invocations };
        let mut stages = vec![stage(hash, 0, rows), stage(Kernel::Decode, 3, decoded)];
        if equations > 0 {
            let lanes = equations * GROUPS * WORKGROUP as usize;
            stages.extend([
                stage(Kernel::Decode, 2, rows),
                stage(Kernel::Weigh, 4, rows),
                stage(Kernel::Prepare, 4, rows),
                stage(Kernel::Sort, 4, lanes),
                stage(Kernel::Accumulate, 4, lanes),
                stage(Kernel::Fold, 4, equations * WINDOWS),
                stage(Kernel::Close, 4, equations),
                stage(Kernel::Settle, 4, equations * EQUATION_GROUPS * WORKGROUP as usize),
            ]);
        }
        stages.extend([
            stage(Kernel::Table, 0, rows),
            stage(Kernel::Ladder, 0, rows),
            stage(Kernel::Finish, 1, finish_shape(rows).1),
            stage(Kernel::Decode, 2, rows),
            stage(Kernel::Exact, 2, rows),
            stage(Kernel::Verdicts, 0, rows.div_ceil(32)),
        ]);
        stages
    }

    /// How much of `batch`, from row `from` on, fits one batch of the device: its end. `None` if row `from` alone has a
    /// message too long for the device.
    #[must_use]
    pub fn fitting(&self, batch: &Columns<'_>, from: usize, rows_max: usize) -> Option<usize> {
        let end = batch.len().min(from + rows_max.min(self.rows_max));
        let Messages::Slices(slices) = batch.messages else { return Some(end) };
        let room = memory::message_bytes(self.rows_max) - CANARY_BYTES;
        let mut used = 0;
        for (row, message) in slices.iter().enumerate().take(end).skip(from) {
            used += 16 + hash_blocks::blocks_of(message.len()) as u64 * 128;
            if used > room {
                return (row > from).then_some(row);
            }
        }
        Some(end)
    }

    /// Uploads a batch and starts its kernels. Blocks while all slots are in flight. `parts` are put side by side: the
    /// batch with canaries before and after it, without copying it on the host. All parts have messages of one form. The keys of
    /// the first `decode` rows are decoded even if they are resident.
    ///
    /// # Errors
    /// [`GpuError::TooLarge`], or what ended the device.
    pub fn begin(&self, parts: &[Columns<'_>], decode: usize, method: Method) -> Result<InFlight, GpuError> {
        loop {
            if let Some(flight) = self.try_begin(parts, decode, method)? {
                return Ok(flight);
            }
            self.wait_for_slot();
        }
    }

    /// [`Engine::begin`] that does not wait: `None` while all slots are in flight. For whoever holds a batch in flight: two that wait
    /// for each other's slots would wait for ever.
    ///
    /// # Errors
    /// As [`Engine::begin`].
    pub fn try_begin(
        &self,
        parts: &[Columns<'_>],
        decode: usize,
        method: Method,
    ) -> Result<Option<InFlight>, GpuError> {
        self.check()?;
        let rows: usize = parts.iter().map(Columns::len).sum();
        if rows > self.rows_max {
            return Err(GpuError::TooLarge { got: rows, limit: self.rows_max });
        }
        let Some(slot) = lock(&self.free.slots).pop() else { return Ok(None) };
        self.faults.maybe_panic();
        let uploaded =
            self.upload(&slot, parts, rows).and_then(|hash| Ok((hash, self.plan(&slot, parts, method)?)));
        let (hash, plan) = match uploaded {
            Ok(uploaded) => uploaded,
            Err(error) => {
                self.return_slot(slot);
                return Err(error);
            }
        };
        let equations = plan.as_ref().map_or(0, |plan| plan.rows.len());
        // From here to the submission nobody else may give out entries: see `resident`.
        let mut residents = lock(&self.residents);
        let places = self.place(&slot, &mut residents, parts, decode, equations);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for stage in Engine::stages(rows, places.list.len(), hash, equations) {
                self.encode(&mut pass, &slot, stage);
            }
        }
        let mut bytes = rows.div_ceil(32) as u64 * 4;
        encoder.copy_buffer_to_buffer(&self.work.scalars, 0, &slot.readback, 0, bytes);
        if equations > 0 {
            let words = equations as u64 * 4;
            encoder.copy_buffer_to_buffer(&self.work.flags, rows as u64 * 4, &slot.readback, bytes, words);
            bytes += words;
        }
        let submission = self.queue.submit([encoder.finish()]);
        drop(residents);
        let (sender, mapped) = channel();
        slot.readback.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver is gone only if nobody wants the answer.
            let _ = sender.send(result);
        });
        if self.faults.loses_now() {
            self.device.destroy();
        }
        Ok(Some(InFlight {
            rows,
            plan,
            slot: Some(slot),
            home: Arc::clone(&self.free),
            submission,
            mapped,
            since: Instant::now(),
        }))
    }

    /// The verdicts, if they are there; does not block.
    pub fn poll(&self, batch: &mut InFlight) -> Option<Result<Answer, GpuError>> {
        let _ = self.device.poll(wgpu::PollType::Poll);
        match batch.mapped.try_recv() {
            Ok(result) => Some(self.read(batch, result)),
            Err(TryRecvError::Empty) => match self.check() {
                Ok(()) if batch.since.elapsed() < self.batch_timeout() => None,
                Ok(()) => Some(Err(self.failure("no answer in time"))),
                Err(error) => Some(Err(error)),
            },
            Err(TryRecvError::Disconnected) => Some(Err(self.failure("a batch's answer was dropped"))),
        }
    }

    /// The verdicts; blocks until they are there.
    ///
    /// # Errors
    /// What ended the device.
    pub fn finish(&self, mut batch: InFlight) -> Result<Answer, GpuError> {
        let poll = wgpu::PollType::Wait {
            submission_index: Some(batch.submission.clone()),
            timeout: Some(self.batch_timeout()),
        };
        if let Err(error) = self.device.poll(poll) {
            return Err(self.failure(&format!("no answer: {error}")));
        }
        // The wait above ran the callback; on a lost device it may come from another thread, soon.
        match batch.mapped.recv_timeout(Duration::from_secs(5)) {
            Ok(result) => self.read(&mut batch, result),
            Err(_) => Err(self.failure("a batch was never answered")),
        }
    }

    /// Verifies a batch of at most `rows_max` rows, without any guard, each row by itself.
    ///
    /// # Errors
    /// [`GpuError::TooLarge`], or what ended the device.
    pub fn verify(&self, batch: &Columns<'_>) -> Result<Vec<bool>, GpuError> {
        self.verify_by(Method::Ladder, batch).map(|answer| answer.verdicts)
    }

    /// [`Engine::verify`] by either method, with what became of the equations.
    ///
    /// # Errors
    /// As [`Engine::verify`].
    pub fn verify_by(&self, method: Method, batch: &Columns<'_>) -> Result<Answer, GpuError> {
        self.finish(self.begin(std::slice::from_ref(batch), 0, method)?)
    }

    pub(crate) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, slot: &Slot, stage: Stage) {
        let pipeline = self.pipelines.iter().find(|(kernel, _)| *kernel == stage.kernel);
        let Some((_, pipeline)) = pipeline else { return };
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &slot.bindings, &[(stage.set * PARAMS_STRIDE) as u32]);
        pass.dispatch_workgroups((stage.invocations as u32).div_ceil(WORKGROUP), 1, 1);
    }

    /// Takes the bits out of a mapped readback buffer and gives the slot back.
    fn read(
        &self,
        batch: &mut InFlight,
        mapped: Result<(), wgpu::BufferAsyncError>,
    ) -> Result<Answer, GpuError> {
        let Some(slot) = batch.slot.take() else { return Err(self.failure("a batch was read twice")) };
        if let Err(error) = mapped {
            return Err(self.failure(&format!("the answer cannot be read: {error}")));
        }
        self.check()?;
        let bits = batch.rows.div_ceil(32) * 4;
        let plan = batch.plan.take();
        let equations = plan.as_ref().map_or(0, |plan| plan.rows.len());
        let bytes: Range<u64> = 0..(bits + 4 * equations) as u64;
        let (mut verdicts, words) = match slot.readback.get_mapped_range(bytes) {
            Ok(view) => {
                let verdicts = (0..batch.rows).map(|row| view[row / 8] >> (row % 8) & 1 == 1);
                (verdicts.collect::<Vec<bool>>(), weft_shaders::bindings::words(&view[bits..]))
            }
            Err(error) => return Err(self.failure(&format!("the answer cannot be read: {error}"))),
        };
        slot.readback.unmap();
        self.return_slot(slot);
        if let Some(row) = self.faults.wrong_row()
            && let Some(verdict) = verdicts.get_mut(row)
        {
            *verdict = !*verdict;
        }
        let equations = plan.map_or_else(Vec::new, |plan| Plan::answers(&plan.rows, plan.holds, &words));
        let mut answer = Answer { verdicts, equations };
        if self.faults.accepts_all() {
            answer.verdicts.fill(true);
        }
        for (place, equation) in answer.equations.iter_mut().enumerate() {
            if self.faults.accepts(place) {
                equation.held = true;
                answer.verdicts[equation.rows.clone()].fill(true);
            }
        }
        Ok(answer)
    }

    pub(crate) fn wait(&self) -> Result<(), GpuError> {
        let poll = wgpu::PollType::Wait { submission_index: None, timeout: Some(self.batch_timeout()) };
        self.device.poll(poll).map_err(|error| self.failure(&format!("no answer: {error}")))?;
        self.check()
    }

    /// Sleeps until a slot may be free. Whoever holds one polls the device; this only needs to notice that it was returned.
    pub(crate) fn wait_for_slot(&self) {
        let free = lock(&self.free.slots);
        if free.is_empty() {
            let slept = self.free.returned.wait_timeout(free, Duration::from_millis(100));
            drop(slept.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn batch_timeout(&self) -> Duration {
        if self.description.software { SOFTWARE_TIMEOUT } else { BATCH_TIMEOUT }
    }

    pub(crate) fn return_slot(&self, slot: Slot) {
        self.free.give_back(slot);
    }

    /// Ends the device for a reason found outside: whoever waits for a slot gets that error, too. Its
    /// resident keys are forgotten.
    pub(crate) fn fail(&self, error: GpuError) {
        lock(&self.state).get_or_insert(error);
        self.free.returned.notify_all();
        self.forget();
    }

    /// The error that ended the device, or `why` recorded as that error.
    pub(crate) fn failure(&self, why: &str) -> GpuError {
        lock(&self.state).get_or_insert_with(|| GpuError::Failed(why.to_owned())).clone()
    }
}
